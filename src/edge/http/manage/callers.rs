//! Who may call the management API.

use std::sync::Arc;

use crate::config::{AccessKey, Management, ManagementAuth};
use crate::edge::sigv4::Verifier;

/// Who may call.
#[derive(Debug)]
pub(super) enum Callers {
    /// Whoever signs with a key.
    Signed(Verifier),
    /// Programs and pages of this host.
    Local,
    /// Anybody.
    Any,
}

impl Callers {
    /// Functions' keys open connections alone.
    pub(super) fn new(management: &Management, functions: &Arc<[AccessKey]>) -> Self {
        match management.auth {
            ManagementAuth::SigV4 => Self::signed(management, functions),
            ManagementAuth::Local => Self::Local,
            ManagementAuth::None => Self::Any,
        }
    }

    /// Nobody but who signs, whatever the other ports ask for.
    pub(super) fn signed(management: &Management, functions: &Arc<[AccessKey]>) -> Self {
        let verifier = Verifier::new(Arc::clone(&management.keys), management.clock_skew);
        Self::Signed(verifier.with_limited(Arc::clone(functions)))
    }
}
