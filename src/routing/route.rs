//! The route table: route keys, their integrations, and how a message selects one.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::model::call::TargetName;
use crate::routing::expression::{Body, Context, Expression};

/// The table that is used when no configuration names routes: a chat room.
pub(crate) const BUILT_IN: &str = include_str!("../../deploy/examples/chat.toml");

/// One route.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Route {
    /// The route key; a metric label, so never a client's text.
    pub(crate) key: Arc<str>,
    /// What the route does.
    pub(crate) integration: Integration,
    /// What names a message that is published, so that it is not published twice.
    pub(crate) idempotency_key: Option<Expression>,
    /// What the sender is answered, if anything.
    pub(crate) reply: Option<Expression>,
    /// `$connect` only: the handshake's status, 200 to let the client in.
    pub(crate) status: u16,
    /// Its place among the routes of its table.
    pub(crate) number: usize,
}

/// What a route does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Integration {
    /// Nothing.
    Mock,
    /// Sends to every connection of the stage, the sender included.
    Broadcast {
        /// What is sent.
        data: Expression,
    },
    /// Sends to the members of a group.
    SendGroup {
        /// The group's name.
        group: Expression,
        /// What is sent.
        data: Expression,
    },
    /// Makes the sender a member of a group.
    Join {
        /// The group's name.
        group: Expression,
    },
    /// Ends the sender's membership.
    Leave {
        /// The group's name.
        group: Expression,
    },
    /// Closes with 1000, after the reply.
    Close,
    /// Calls a back end.
    Call {
        target: TargetName,
        /// Whether the sender is sent what is answered.
        two_way: bool,
        /// Whether calls of one connection go one after the other.
        is_ordered: bool,
    },
}

/// Which calls of one connection wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ordering {
    None,
    Connection,
}

/// All routes of a stage and the expression that selects among them.
#[derive(Clone, PartialEq)]
pub(crate) struct RouteTable {
    selection: Expression,
    routes: HashMap<Arc<str>, Route>,
}

impl fmt::Debug for RouteTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut keys: Vec<_> = self.routes.keys().collect();
        keys.sort();
        f.debug_set().entries(keys).finish()
    }
}

impl RouteTable {
    /// Puts a table together.
    #[must_use]
    pub(crate) fn new(selection: Expression, routes: Vec<Route>) -> Self {
        let numbered =
            routes.into_iter().enumerate().map(|(number, route)| Route { number, ..route });
        let routes = numbered.map(|route| (route.key.clone(), route)).collect();
        Self { selection, routes }
    }

    /// Returns the route of a message that is not text alone: the one whose key equals the
    /// selection's result, else `$default`.
    #[must_use]
    pub(crate) fn select(&self, body: &Body<'_>, context: &impl Context) -> Option<&Route> {
        let key = self.selection.select(body, context);
        key.and_then(|key| self.routes.get(&*key))
            .filter(|route| !route.key.starts_with('$'))
            .or_else(|| self.get("$default"))
    }

    /// Returns the route of a text message that is not JSON.
    #[must_use]
    pub(crate) fn for_text(&self) -> Option<&Route> {
        self.get("$text").or_else(|| self.get("$default"))
    }

    /// Returns the route of a binary message.
    #[must_use]
    pub(crate) fn for_binary(&self) -> Option<&Route> {
        self.get("$binary").or_else(|| self.get("$default"))
    }

    /// Returns `$connect`.
    #[must_use]
    pub(crate) fn connect(&self) -> Option<&Route> {
        self.get("$connect")
    }

    /// Returns `$disconnect`.
    #[must_use]
    pub(crate) fn disconnect(&self) -> Option<&Route> {
        self.get("$disconnect")
    }

    /// Returns all routes, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Route> {
        self.routes.values()
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Route> {
        self.routes.get(key)
    }
}

/// The keys that start with `$`; no message selects them by its text.
pub(crate) const PREDEFINED: [&str; 5] =
    ["$connect", "$disconnect", "$default", "$text", "$binary"];
