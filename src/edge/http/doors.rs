//! Both ways in for a head, over memory instead of a socket, for tests/fuzz: they have to agree on
//! what is a handshake.

use std::convert::Infallible;
use std::io::Cursor;
use std::sync::Arc;

use futures_util::FutureExt as _;
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{Method, Request, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use warp::Filter as _;
use warp::path::FullPath;

use super::answer::json_reply;
use super::handshake::{self, LOOK_BYTES, LOOK_FIELDS};
use super::request::{self, MAX_HEAD, MAX_HEADERS};
use super::routes::{Routes, routes};
use super::{manage, upgrade};
use crate::model::handshake::Handshake;

/// Feeds bytes through both ways.
///
/// # Panics
/// Where they do not agree.
#[expect(clippy::panic, reason = "what is found is to stop the fuzzer")]
pub fn feed(input: &[u8]) {
    let looked = handshake::look_at(input.get(..LOOK_BYTES).unwrap_or(input));
    let looked = looked.map(|head| head.handshake);
    let served = serve(input);
    let is_short = input.len() <= LOOK_BYTES;
    match (&looked, &served) {
        (Some(looked), Some((Method::GET, Version::HTTP_11, served))) if looked == served => {}
        (Some(looked), served) => panic!("only the look takes {looked:?}, not {served:?}"),
        (None, Some((method, version, served))) => {
            let is_plain = is_short
                && served.headers.len() < LOOK_FIELDS
                && ![CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT]
                    .iter()
                    .any(|name| served.headers.contains_key(name))
                && !manage::is_path(&served.path);
            let is_handshake = upgrade::accept(method, *version, &served.headers).is_ok();
            assert!(!(is_plain && is_handshake), "the look does not take {served:?}");
        }
        (None, None) => {}
    }
}

/// Returns the first request that comes to the routes through the HTTP server.
fn serve(input: &[u8]) -> Option<(Method, Version, Handshake)> {
    let first = Mutex::new(None);
    let routes: Routes = routes(warp::path::full().and_then(|path: FullPath| async move {
        Ok::<_, warp::Rejection>(json_reply(http::StatusCode::OK, path.as_str().into()))
    }));
    let service = service_fn(|incoming: Request<Incoming>| {
        let (mut head, body) = incoming.into_parts();
        let refused = request::normalize(&mut head.uri, head.version, &mut head.headers).err();
        let mut first = first.lock();
        // What comes behind a request that was refused is not looked at.
        if first.is_none() {
            let (path, query) = (head.uri.path().to_owned(), head.uri.query().map(str::to_owned));
            let arrived = Handshake { path, query, headers: head.headers.clone() };
            *first = Some(refused.is_none().then(|| (head.method.clone(), head.version, arrived)));
        }
        let routes = Arc::clone(&routes);
        Box::pin(async move {
            match refused {
                Some(refusal) => {
                    Ok::<_, Infallible>(warp::Reply::into_response(request::refuse(refusal)))
                }
                None => routes(Request::from_parts(head, body)).await,
            }
        })
    });
    let mut output = Vec::new();
    let io = TokioIo::new(tokio::io::join(Cursor::new(input), &mut output));
    let mut conversation = http1::Builder::new()
        .header_read_timeout(None)
        .half_close(true)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(io, service);
    drop(
        std::future::poll_fn(|context| conversation.poll_without_shutdown(context)).now_or_never(),
    );
    drop(conversation);
    assert!(output.is_empty() || output.starts_with(b"HTTP/1."), "an answer is one");
    first.into_inner().flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::feed;

    const HEADS: [&str; 5] = [
        "GET /beta HTTP/1.1\r\nHost: gate\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEC==\r\n\r\n",
        "GET http://gate/beta HTTP/1.1\r\nHost: other\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nHost: gate\r\n\r\n",
        "POST @broadcast:80 HTTP/1.1\r\nHost: gate\r\nContent-Length: 1\r\n\r\na",
        "OPTIONS * HTTP/1.1\r\nHost: gate\r\n\r\nGET beta HTTP/1.0\r\n\r\n",
    ];

    proptest! {
        #[test]
        fn both_ways_agree(head in 0..HEADS.len(), at: prop::sample::Index, cut in 0..8_usize, noise in "[ -~\\r\\n]{0,12}") {
            let mut bytes = HEADS[head].as_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes.splice(at..(at + cut).min(bytes.len()), noise.bytes());
            feed(&bytes);
            feed(HEADS[head].as_bytes());
        }
    }
}
