//! The HTTP client of back ends: HTTP/1.1, keep-alive, no redirects.
//!
//! A request is sent once; it is sent again only where a kept connection turned out to be closed
//! before a byte of it was written. Every answer is bounded: its head by [`MAX_HEAD`], its body by
//! what [`read`] is told, its time by the caller.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::RootCertStore;

use crate::integrations::target::{Failure, failed};
use crate::model::call::CallError;

/// For a TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Kept connections are closed before the other side does it: Node.js does after 5 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Longest head of an answer, in bytes.
const MAX_HEAD: usize = 64 << 10;

/// Longest body of an answer, in bytes: the most that Lambda gives (6 MiB).
pub(crate) const MAX_BODY: usize = 6 << 20;

/// See the [module documentation](self); clones share their connections.
#[derive(Clone, Debug)]
pub(crate) struct HttpClient(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl HttpClient {
    pub(crate) fn new(roots: &Arc<RootCertStore>) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ));
        #[expect(clippy::expect_used, reason = "ring speaks both versions")]
        let tls = tls.with_safe_default_protocol_versions().expect("TLS 1.2 and 1.3");
        let tls = tls.with_root_certificates(Arc::clone(roots)).with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .http1_max_buf_size(MAX_HEAD)
            .build(connector);
        Self(client)
    }

    /// Sends a request, and returns the head of the answer.
    ///
    /// # Errors
    /// Nobody is reached, or the connection has broken off.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Failure> {
        self.0.request(request).await.map_err(|error| unreached(&error))
    }
}

/// Reads the body of an answer, of at most `most` bytes.
///
/// # Errors
/// It is longer, or the connection has broken off.
pub(crate) async fn read(body: Incoming, most: usize) -> Result<Bytes, Failure> {
    let body = Limited::new(body, most).collect().await;
    Ok(body.map_err(|error| failed(format!("its answer broke off: {error}")))?.to_bytes())
}

/// Tells why a back end was not reached; or has broken off, which after a byte of it was sent
/// cannot be told from that.
fn unreached(error: &Error) -> Failure {
    let cause =
        error.source().map_or_else(|| error.to_string(), |cause| deepest(cause).to_string());
    let error = if error.is_connect() { CallError::Unreachable } else { CallError::Failed };
    Failure { error, message: cause }
}

/// Returns what is behind an error.
fn deepest<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> &'e (dyn std::error::Error + 'static) {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error
}
