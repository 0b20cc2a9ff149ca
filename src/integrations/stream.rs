//! Events in a stream of Redis, for workers with consumer groups.
//!
//! An entry has one field, `event`: the event of a Lambda proxy integration. The oldest entries go
//! when there are more than the operator has set, whether somebody has read them or not. An append
//! that is tried again may be there twice.

use futures_util::future::BoxFuture;
use redis::cmd;
use tokio::time::Instant;

use crate::cluster::store::Store;
use crate::integrations::event;
use crate::integrations::target::{Failure, Target};
use crate::model::call::{Answer, CallError, Event, Scene};

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct StreamTarget {
    pub(crate) store: Store,
    pub(crate) key: String,
    pub(crate) max_entries: usize,
    pub(crate) scene: Scene,
}

impl Target for StreamTarget {
    fn attributes(&self) -> Vec<(&'static str, String)> {
        vec![
            ("db.system.name", "redis".to_owned()),
            ("db.operation.name", "XADD".to_owned()),
            ("db.collection.name", self.key.clone()),
        ]
    }

    fn carry_out<'a>(
        &'a self,
        event: &'a Event,
        _: Instant,
    ) -> BoxFuture<'a, Result<Answer, Failure>> {
        Box::pin(async move {
            let rendered = event::render(event, &self.scene);
            let mut append = cmd("XADD");
            append.arg(&self.key).arg("MAXLEN").arg("~").arg(self.max_entries).arg("*");
            append.arg("event").arg(&rendered[..]);
            let unreachable = |error| Failure {
                error: CallError::Unreachable,
                message: format!("not appended: {error}"),
            };
            self.store.run(&self.key, vec![append]).await.map_err(unreachable)?;
            Ok(Answer { status: 200, ..Answer::default() })
        })
    }
}
