//! The sockets that posts go to, and the HTTP connections of the clients.
//!
//! Rule: all are in one fleet, sockets first, so that one thread sees a post's answer and its
//! arrival by the same clock.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::bench::fleet::{Fleet, Opening, Pace};
use crate::bench::payload::Payloads;
use crate::bench::sigv4::{Key, Signer};
use crate::shared::conn::Incoming;
use crate::shared::envelope::Envelope;
use crate::shared::gateway::{Notice, WHO_AM_I};
use crate::shared::http;
use crate::shared::process;
use crate::shared::target::Target;

const LIMIT: Duration = Duration::from_secs(60);

/// Open connections of both kinds.
#[derive(Debug)]
pub(crate) struct Posting {
    pub(super) fleet: Fleet,
    /// The path of each socket in the management API.
    paths: Vec<String>,
    authority: String,
    pub(super) clients: usize,
    /// None if posts are not signed.
    key: Option<Key>,
    outgoing: Vec<u8>,
}

impl Posting {
    /// Opens the sockets, asks for their ids, and opens the clients' connections.
    pub(crate) fn open(
        (sockets, n): (&[Target], usize),
        (entrance, clients): (&Target, usize),
    ) -> Result<Self> {
        process::reserve_files(n + clients)?;
        let mut fleet = Fleet::open(sockets, n, Opening::Handshake(Envelope::Plain))?;
        let stage =
            entrance.path.split('?').next().unwrap_or_default().trim_end_matches('/').to_owned();
        let paths =
            ids(&mut fleet, n)?.iter().map(|id| format!("{stage}/@connections/{id}")).collect();
        fleet.add(std::slice::from_ref(entrance), (clients, Opening::Http), &Pace::default())?;
        let authority = entrance.authority.clone();
        Ok(Self { fleet, paths, authority, clients, key: None, outgoing: Vec::new() })
    }

    /// Signs posts from now on, if there is a key.
    pub(crate) fn signed(self, key: Option<Key>) -> Self {
        Self { key, ..self }
    }

    pub(super) fn n_sockets(&self) -> usize {
        self.paths.len()
    }

    /// Returns the headers that sign the first `n` posts, which go to the sockets in turn; none if
    /// posts are not signed.
    pub(super) fn sign(&self, payloads: &Payloads, n: u32) -> Result<Vec<String>> {
        let Some(key) = &self.key else { return Ok(Vec::new()) };
        let signer = Signer::new(key, SystemTime::now())?;
        let posts = (0..n).zip(self.paths.iter().cycle());
        let sign = |(number, path): (u32, &String)| {
            signer.headers((&self.authority, path), &payloads.build(number))
        };
        Ok(posts.map(sign).collect())
    }

    /// Lets a client post headers and a body to a socket; never waits.
    pub(super) fn post(
        &mut self,
        client: usize,
        socket: usize,
        content: (&str, &str),
    ) -> Result<()> {
        let path =
            self.paths.get(socket).with_context(|| format!("there is no socket {socket}"))?;
        self.outgoing.clear();
        http::encode(&mut self.outgoing, ("POST", path), &self.authority, content);
        self.fleet.send_bytes(self.paths.len() + client, &self.outgoing)
    }

    /// Closes everything.
    pub(crate) fn close(self) -> Result<()> {
        self.fleet.close()
    }
}

/// Asks the server for the id of each connection.
fn ids(fleet: &mut Fleet, n: usize) -> Result<Vec<String>> {
    let mut ids = vec![String::new(); n];
    let mut answer = |conn: usize, incoming: &Incoming<'_>| {
        let notice = match incoming {
            Incoming::Text(text) => Notice::read(text).filter(Notice::is_forbidden),
            _ => None,
        };
        let id = notice.and_then(|notice| notice.connection_id).filter(|id| is_plain(id));
        match (id, ids.get_mut(conn)) {
            (Some(id), Some(place)) if place.is_empty() => *place = id,
            _ => bail!(
                "the server did not refuse an unknown action with the connection's id, but sent {incoming:?}"
            ),
        }
        Ok(())
    };
    fleet.ask_all((n, "ids are known"), LIMIT, |nth| (nth, WHO_AM_I.to_owned()), &mut answer)?;
    Ok(ids)
}

/// Returns whether an id needs no encoding in a path.
fn is_plain(id: &str) -> bool {
    !id.is_empty()
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_=.~".contains(&byte))
}
