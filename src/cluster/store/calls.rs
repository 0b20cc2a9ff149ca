//! Carries out many calls at once, each at the server that has its key.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value, cmd};

use super::error::{StoreError, refused_or};
use super::script::Script;
use super::server::{Answers, Server, ServerCommand};
use super::topology::Topology;
use crate::model::trouble::RedisRefusal;

/// Times that a call follows a slot which moves.
const REDIRECTS: usize = 50;
/// Pause before it follows again: the slot's keys are on their way.
const REDIRECT_PAUSE: Duration = Duration::from_millis(20);

/// A command, and the key or channel that says where it is carried out.
#[derive(Debug)]
pub(crate) struct Call {
    name: String,
    command: Cmd,
    /// Whether the command ends with the replication id of the server that carries it out, as far
    /// as that is known.
    needs_id: bool,
}

impl Call {
    pub(crate) fn new(name: String, command: Cmd) -> Self {
        Self { name, command, needs_id: false }
    }

    /// A call that depends on which server carries it out; its answer is a list that ends with the
    /// true id.
    pub(crate) fn of_server(name: String, command: Cmd) -> Self {
        Self { name, command, needs_id: true }
    }

    /// Returns the key or channel.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// What became of a call: the answer, or why there is none.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) result: Result<Value, StoreError>,
    /// Whether a server carried it out that is about to take the slot over: its subscribers are
    /// elsewhere still.
    pub(crate) is_ahead: bool,
}

/// A call on its way.
struct Routed<'c> {
    index: usize,
    call: &'c Call,
    server: Arc<Server>,
    /// Whether the server does not have the slot yet, and was named by the one that has.
    asking: bool,
    /// The number of the connection over which it was asked last.
    connection: u64,
}

/// Where a server sends a call to.
enum Redirect {
    Moved(Arc<Server>),
    Ask(Arc<Server>),
    /// Some of its keys are here and some there, or the script is not: ask the first again.
    Again,
}

impl Topology {
    /// Carries out calls, in one round trip to each server; those on one name are carried out in
    /// their order. `script` is loaded before them. A call is sent again only where a server has
    /// said that it did not carry it out.
    pub(super) async fn run_all(&self, script: Option<&Script>, calls: &[Call]) -> Vec<Outcome> {
        let mut outcomes: Vec<Option<Outcome>> = calls.iter().map(|_| None).collect();
        let mut open = Vec::new();
        for (index, call) in calls.iter().enumerate() {
            match self.server_of(&call.name) {
                Ok(server) => {
                    open.push(Routed { index, call, server, asking: false, connection: 0 });
                }
                Err(error) => {
                    let outcome = Outcome { result: Err(error), is_ahead: false };
                    set(&mut outcomes, index, outcome);
                }
            }
        }
        for round in 0..=REDIRECTS {
            if open.is_empty() {
                break;
            }
            if round > 1 {
                tokio::time::sleep(REDIRECT_PAUSE).await;
            }
            let done =
                join_all(by_server(open).into_iter().map(|group| run_group(script, group))).await;
            open = Vec::new();
            for (routed, result) in done.into_iter().flatten() {
                match self.redirect(&routed, &result).filter(|_| round < REDIRECTS) {
                    Some(redirect) => open.push(self.follow(routed, redirect)),
                    None => {
                        let result = self.settled(&routed.server, result);
                        let outcome = Outcome { result, is_ahead: routed.asking };
                        set(&mut outcomes, routed.index, outcome);
                    }
                }
            }
            open.sort_by_key(|routed| routed.index);
        }
        let unsent = || Outcome { result: Err(StoreError::Closed), is_ahead: false };
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(unsent)).collect()
    }

    /// Takes the last word of a server on a call.
    fn settled(
        &self,
        server: &Server,
        result: Result<Value, StoreError>,
    ) -> Result<Value, StoreError> {
        let result = result.and_then(refused_or);
        if let Err(error) = &result {
            self.refusals().on_error(&server.address, error);
            if error.is_of_topology() {
                self.suspect();
            }
        }
        result
    }

    fn redirect(
        &self,
        routed: &Routed<'_>,
        result: &Result<Value, StoreError>,
    ) -> Option<Redirect> {
        let Ok(Value::ServerError(error)) = result else { return None };
        let error = RedisError::from(error.clone());
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::NoScript) => {
                routed.server.forget_scripts();
                Some(Redirect::Again)
            }
            ErrorKind::Server(ServerErrorKind::TryAgain) => Some(Redirect::Again),
            ErrorKind::Server(kind @ (ServerErrorKind::Moved | ServerErrorKind::Ask)) => {
                let (address, _) = error.redirect_node()?;
                let (host, port) = address.rsplit_once(':')?;
                // A server that does not know its own name means "at the same host".
                let host = if host.is_empty() { &routed.server.host } else { host };
                let server = self.server(host, port.parse().ok()?);
                if kind == ServerErrorKind::Ask {
                    return Some(Redirect::Ask(server));
                }
                self.suspect();
                Some(Redirect::Moved(server))
            }
            _ => self.ask_anew(routed, RedisRefusal::of(&error)?),
        }
    }

    /// A server that is not the right one any more has not carried out the call: it is asked again
    /// over a new connection, once, wherever its name or the map leads by then.
    fn ask_anew(&self, routed: &Routed<'_>, class: RedisRefusal) -> Option<Redirect> {
        let is_replica = class == RedisRefusal::ReadOnly;
        (class.is_moved_on() && routed.server.renew(routed.connection, is_replica)).then(|| {
            self.suspect();
            Redirect::Again
        })
    }

    fn follow<'c>(&self, routed: Routed<'c>, redirect: Redirect) -> Routed<'c> {
        match redirect {
            Redirect::Moved(server) => Routed { server, asking: false, ..routed },
            Redirect::Ask(server) => Routed { server, asking: true, ..routed },
            Redirect::Again => match self.server_of(&routed.call.name) {
                Ok(server) => Routed { server, asking: false, ..routed },
                Err(_) => routed,
            },
        }
    }
}

fn set(outcomes: &mut [Option<Outcome>], index: usize, outcome: Outcome) {
    if let Some(place) = outcomes.get_mut(index) {
        *place = Some(outcome);
    }
}

/// Groups calls by server, each group in order.
fn by_server(calls: Vec<Routed<'_>>) -> Vec<Vec<Routed<'_>>> {
    let mut groups: Vec<Vec<Routed<'_>>> = Vec::new();
    for routed in calls {
        let is_same = |group: &&mut Vec<Routed<'_>>| {
            group.first().is_some_and(|first| Arc::ptr_eq(&first.server, &routed.server))
        };
        match groups.iter_mut().find(is_same) {
            Some(group) => group.push(routed),
            None => groups.push(vec![routed]),
        }
    }
    groups
}

/// Carries out the calls of one server.
async fn run_group<'c>(
    script: Option<&Script>,
    calls: Vec<Routed<'c>>,
) -> Vec<(Routed<'c>, Result<Value, StoreError>)> {
    let Some(server) = calls.first().map(|first| Arc::clone(&first.server)) else {
        return Vec::new();
    };
    let asking = cmd("ASKING");
    let with_asking = |Routed { call, asking: is_asking, .. }: &Routed<'c>| {
        let before = is_asking.then_some(ServerCommand { command: &asking, needs_id: false });
        let needs_id = call.needs_id;
        before
            .into_iter()
            .chain([ServerCommand { command: &call.command, needs_id }])
            .collect::<Vec<_>>()
    };
    let commands: Vec<ServerCommand<'_>> = calls.iter().flat_map(with_asking).collect();
    match server.run(script, &commands).await {
        Ok(Answers { values, connection }) => {
            let mut values = values.into_iter();
            let answer = |routed: Routed<'c>| {
                let routed = Routed { connection, ..routed };
                let value = values.nth(usize::from(routed.asking));
                (routed, value.ok_or(StoreError::Closed))
            };
            calls.into_iter().map(answer).collect()
        }
        Err(error) => calls.into_iter().map(|routed| (routed, Err(error.clone()))).collect(),
    }
}
