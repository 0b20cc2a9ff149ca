//! Pages of what this node holds.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Hub;
use crate::model::broker::Channel;
use crate::model::listing::{Connections, Counts, Groups, Listed, PAGE_MAX, Query, Seat};
use crate::shard::inbox::Event;

impl Hub {
    /// Returns a page of this node; what shards that have ended held is not in it.
    pub(crate) async fn list(&self, query: Query) -> Listed {
        match query {
            Query::Connections { channel, from, limit } => Listed::Connections(
                self.list_connections(&channel, from, limit.min(PAGE_MAX)).await,
            ),
            Query::Groups { after, limit } => {
                Listed::Groups(self.list_groups(&after, limit.min(PAGE_MAX)).await)
            }
            Query::Counts => Listed::Counts(self.count().await),
            Query::Functions => {
                let functions = self.functions.get().map(|functions| functions.list());
                Listed::Functions(functions.unwrap_or_default())
            }
        }
    }

    async fn list_connections(&self, channel: &Channel, from: Seat, limit: usize) -> Connections {
        let mut page = Connections::default();
        for shard in from.shard..self.shard_count() {
            let key = if shard == from.shard { from.key } else { 0 };
            if page.rows.len() >= limit {
                page.next = Some(Seat { shard, key });
                break;
            }
            let (from, limit) = (Seat { shard, key }, limit - page.rows.len());
            let query = Query::Connections { channel: channel.clone(), from, limit };
            let Some(Listed::Connections(part)) = self.ask(shard, query).await else { continue };
            page.rows.extend(part.rows);
            if part.next.is_some() {
                page.next = part.next;
                break;
            }
        }
        page
    }

    async fn list_groups(&self, after: &Arc<str>, limit: usize) -> Groups {
        let mut page = Groups::default();
        for shard in 0..self.shard_count() {
            let query = Query::Groups { after: Arc::clone(after), limit };
            if let Some(Listed::Groups(part)) = self.ask(shard, query).await {
                page.merge(part, limit);
            }
        }
        page
    }

    /// Counts; a group may have members in many shards, so the groups are counted by paging through
    /// them.
    async fn count(&self) -> Counts {
        let mut counts = Counts::default();
        for shard in 0..self.shard_count() {
            if let Some(Listed::Counts(part)) = self.ask(shard, Query::Counts).await {
                counts.connections += part.connections;
            }
        }
        let mut after = Arc::from("");
        loop {
            let page = self.list_groups(&after, PAGE_MAX).await;
            counts.groups += page.rows.len();
            match page.rows.last_key_value() {
                Some((last, _)) if page.more => after = Arc::clone(last),
                _ => return counts,
            }
        }
    }

    async fn ask(&self, shard: usize, query: Query) -> Option<Listed> {
        let (done, answer) = oneshot::channel();
        self.inbox(shard).push(Event::List { query, done });
        answer.await.ok()
    }
}
