//! Who may call the management API.

use std::sync::Arc;

use crate::config::{Management, ManagementAuth};
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
    pub(super) fn new(management: &Management) -> Self {
        match management.auth {
            ManagementAuth::SigV4 => {
                Self::Signed(Verifier::new(Arc::clone(&management.keys), management.clock_skew))
            }
            ManagementAuth::Local => Self::Local,
            ManagementAuth::None => Self::Any,
        }
    }
}
