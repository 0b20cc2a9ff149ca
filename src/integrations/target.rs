//! What carries a call out.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::integrations::event;
use crate::integrations::invoke::{Invocation, Invoke, InvokeError};
use crate::integrations::result::{self, Need};
use crate::model::call::{Answer, CallError, Event, Occasion, Scene};

/// Why a back end has not answered, and what the log says of it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: CallError,
    pub(crate) message: String,
}

/// Carries calls out, one at a time or many.
pub(crate) trait Target: fmt::Debug + Send + Sync {
    /// Returns what the spans of its calls say of it, in the words of OpenTelemetry's semantic
    /// conventions.
    fn attributes(&self) -> Vec<(&'static str, String)>;

    /// Carries a call out. Dropping the future gives it up.
    fn carry_out<'a>(
        &'a self,
        event: &'a Event,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Answer, Failure>>;
}

/// The call has failed.
pub(super) fn failed(message: impl fmt::Display) -> Failure {
    Failure { error: CallError::Failed, message: message.to_string() }
}

/// A Lambda function, wherever it runs.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// Who runs it, in the words of OpenTelemetry.
    pub(crate) provider: &'static str,
    pub(crate) invoke: Arc<dyn Invoke>,
    pub(crate) scene: Scene,
    /// Longest body of a result, in bytes.
    pub(crate) message_bytes: usize,
}

impl Target for Function {
    fn attributes(&self) -> Vec<(&'static str, String)> {
        vec![
            ("faas.invoked_name", self.name.clone()),
            ("faas.invoked_provider", self.provider.to_owned()),
        ]
    }

    fn carry_out<'a>(
        &'a self,
        event: &'a Event,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Answer, Failure>> {
        Box::pin(async move {
            let rendered = event::render(event, &self.scene);
            let invocation = Invocation {
                request: event.request,
                event: rendered,
                deadline,
                trail: event.trail,
            };
            let result = self.invoke.invoke(invocation).await.map_err(|error| refused(&error))?;
            result::parse(&result, need(event), self.message_bytes).map_err(failed)
        })
    }
}

fn refused(error: &InvokeError) -> Failure {
    let message = error.to_string();
    let error = match error {
        InvokeError::Function { .. } => CallError::Failed,
        InvokeError::TimedOut => CallError::TimedOut,
        InvokeError::Overload(_) => CallError::Overload,
        InvokeError::Unreachable(_) => CallError::Unreachable,
    };
    Failure { error, message }
}

/// Returns how much of a result an event needs.
pub(super) fn need(event: &Event) -> Need {
    match &event.occasion {
        Occasion::Connect(_) => Need::Result,
        Occasion::Message { .. } if event.wants_reply => Need::Result,
        Occasion::Message { .. } | Occasion::Disconnect { .. } => Need::Nothing,
    }
}
