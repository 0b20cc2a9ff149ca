//! The API server: who it is, how it is asked, and what its refusals mean.
//!
//! It is believed only with a certificate of the CA that is mounted beside the token, and the token
//! goes nowhere else.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::exchange::{exchange, within};
use super::fault::{CostError, fault};
use super::pod::{ANNOTATION, List, Pod};
use crate::ops::metrics::CostFault;

/// For a request as a whole.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Of that, for the connection and TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Pods of a page.
const PAGE: usize = 50;

/// More pages, of 1,000 pods, than a gateway has: the selector means others too.
const MOST_PAGES: usize = 20;

/// Longest answer: a page of pods of 80 KB each, which is a multiple of what they have.
const ANSWER_BYTES: usize = 4 << 20;

/// What is encoded in paths and queries. Dots are, so that no name leads out of its path.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-');

/// Longest part of the server's reason that is logged.
const REASON_CHARS: usize = 300;

/// Where the API server is, and where what it is asked with is kept.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) namespace: String,
    /// The folder with `token` and `ca.crt`, which Kubernetes renews.
    pub(super) service_account: PathBuf,
}

/// The API server, with the token and the CA as they are now.
pub(super) struct ApiClient<'a> {
    api: &'a Api,
    tls: TlsConnector,
    name: ServerName<'static>,
    authorization: HeaderValue,
}

/// How the API server says no.
#[derive(Deserialize)]
struct ApiStatus {
    message: String,
}

impl Api {
    /// Reads the token and the CA's certificate.
    ///
    /// # Errors
    /// One of them is not there, or not what it should be.
    pub(super) fn open(&self) -> Result<ApiClient<'_>, CostError> {
        let wrong = |file: &str, reason: &dyn std::fmt::Display| {
            let path = self.service_account.join(file);
            fault(CostFault::Credentials, format!("{}: {reason}", path.display()))
        };
        let token = std::fs::read_to_string(self.service_account.join("token"));
        let token = token.map_err(|error| wrong("token", &error))?;
        let bearer = HeaderValue::try_from(format!("Bearer {}", token.trim()));
        let mut authorization = bearer.map_err(|_| wrong("token", &"is no token"))?;
        if token.trim().is_empty() {
            return Err(wrong("token", &"is empty"));
        }
        authorization.set_sensitive(true);
        let tls =
            trust(&self.service_account.join("ca.crt")).map_err(|error| wrong("ca.crt", &error))?;
        let name = ServerName::try_from(self.host.clone());
        let name =
            name.map_err(|_| fault(CostFault::Unreachable, format!("{} is no host", self.host)))?;
        Ok(ApiClient { api: self, tls, name, authorization })
    }

    /// The path of the pods, or of one of them.
    fn path(&self, pod: &str) -> String {
        let encode = |text| utf8_percent_encode(text, ENCODED);
        let pods = format!("/api/v1/namespaces/{}/pods", encode(&self.namespace));
        if pod.is_empty() { pods } else { format!("{pods}/{}", encode(pod)) }
    }
}

/// A client that believes who has a certificate of this CA, and nobody else.
fn trust(ca: &Path) -> io::Result<TlsConnector> {
    let invalid = |error: &dyn std::fmt::Display| {
        io::Error::new(io::ErrorKind::InvalidData, error.to_string())
    };
    let pem = std::fs::read(ca)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots
            .add(certificate.map_err(|error| invalid(&error))?)
            .map_err(|error| invalid(&error))?;
    }
    if roots.is_empty() {
        return Err(invalid(&"holds no certificate in PEM"));
    }
    let config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid(&error))?;
    Ok(TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
}

impl ApiClient<'_> {
    /// Returns the pods that a selector means, page by page.
    ///
    /// # Errors
    /// A page is not to be had, or they are too many.
    pub(super) async fn list(&self, selector: &str) -> Result<Vec<Pod>, CostError> {
        let (mut pods, mut next) = (Vec::new(), String::new());
        for _ in 0..MOST_PAGES {
            let encode = |text| utf8_percent_encode(text, ENCODED);
            let mut path =
                format!("{}?labelSelector={}&limit={PAGE}", self.api.path(""), encode(selector));
            if !next.is_empty() {
                path = format!("{path}&continue={}", encode(&next));
            }
            let page = self.ask(Method::GET, &path, None, "list").await?;
            let page: List = serde_json::from_slice(&page)
                .map_err(|error| fault(CostFault::Unexpected, error.to_string()).at("list"))?;
            pods.extend(page.items);
            next = page.metadata.next;
            if next.is_empty() {
                return Ok(pods);
            }
        }
        let words =
            format!("more than {} match {selector}: it means others too", MOST_PAGES * PAGE);
        Err(fault(CostFault::Unexpected, words).at("list"))
    }

    /// Writes a pod's cost, and touches nothing else of it.
    ///
    /// # Errors
    /// It is not written, or that is not certain.
    pub(super) async fn set_cost(&self, pod: &str, cost: i32) -> Result<(), CostError> {
        let patch = json!({ "metadata": { "annotations": { ANNOTATION: cost.to_string() } } });
        self.ask(Method::PATCH, &self.api.path(pod), Some(patch.to_string()), "patch")
            .await
            .map(drop)
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        patch: Option<String>,
        verb: &'static str,
    ) -> Result<Bytes, CostError> {
        let mut request = Request::builder().method(method).uri(path);
        if patch.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/merge-patch+json");
        }
        let Api { host, port, .. } = self.api;
        let host =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let request = request
            .header(header::HOST, host)
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("gatecast/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close")
            .body(Full::from(patch.unwrap_or_default()))
            .map_err(|error| fault(CostFault::Unexpected, error.to_string()).at(verb))?;
        let (status, body) = within(TIMEOUT, async {
            let stream = within(CONNECT_TIMEOUT, self.connect()).await?;
            exchange(stream, request, ANSWER_BYTES).await
        })
        .await
        .map_err(|fault| fault.at(verb))?;
        if status.is_success() { Ok(body) } else { Err(refused(status, &body, verb)) }
    }

    async fn connect(&self) -> Result<tokio_rustls::client::TlsStream<TcpStream>, CostError> {
        let Api { host, port, .. } = self.api;
        let unreachable = |error: io::Error| {
            fault(CostFault::Unreachable, format!("{host} port {port}: {error}"))
        };
        let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(unreachable)?;
        let secured = self.tls.connect(self.name.clone(), stream).await;
        secured.map_err(|error| {
            let is_tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
            if is_tls {
                let words = format!(
                    "{host} port {port} is not the API server that ca.crt vouches for: {error}"
                );
                fault(CostFault::Tls, words)
            } else {
                unreachable(error)
            }
        })
    }
}

/// What a refusal means, and what to do about it.
fn refused(status: StatusCode, body: &[u8], verb: &'static str) -> CostError {
    let (kind, advice) = match status {
        StatusCode::UNAUTHORIZED => {
            (CostFault::Unauthorized, "the token is not valid (any more)".to_owned())
        }
        StatusCode::FORBIDDEN => (
            CostFault::Forbidden,
            format!("the Role of the service account needs the verb {verb} for pods"),
        ),
        StatusCode::NOT_FOUND => (CostFault::NotFound, "it has gone meanwhile".to_owned()),
        StatusCode::CONFLICT => (CostFault::Conflict, "somebody else changed it".to_owned()),
        StatusCode::TOO_MANY_REQUESTS => {
            (CostFault::Throttled, "the API server has too much to do".to_owned())
        }
        status if status.is_server_error() => {
            (CostFault::Server, "the API server is not well".to_owned())
        }
        _ => (CostFault::Unexpected, "was not expected".to_owned()),
    };
    let reason = serde_json::from_slice(body)
        .map_or_else(|_| String::new(), |ApiStatus { message }| message);
    let reason: String = reason.chars().take(REASON_CHARS).collect();
    fault(kind, format!("{status}, {advice}: {reason:?}")).at(verb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_is_missing_and_is_no_longer_than_a_line() {
        let body = json!({ "message": "pods is \u{1b}[31mforbidden\n".repeat(40) }).to_string();
        let fault = refused(StatusCode::FORBIDDEN, body.as_bytes(), "list");
        assert_eq!(fault.kind, CostFault::Forbidden);
        assert!(fault.message.contains("needs the verb list for pods"), "{}", fault.message);
        assert!(
            !fault.message.contains(['\n', '\u{1b}']) && fault.message.len() < 600,
            "{}",
            fault.message
        );
    }

    #[test]
    fn each_status_is_of_a_kind() {
        let kinds = [
            (401, CostFault::Unauthorized),
            (403, CostFault::Forbidden),
            (404, CostFault::NotFound),
            (409, CostFault::Conflict),
            (429, CostFault::Throttled),
            (500, CostFault::Server),
            (503, CostFault::Server),
            (302, CostFault::Unexpected),
            (410, CostFault::Unexpected),
            (422, CostFault::Unexpected),
        ];
        for (status, kind) in kinds {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(refused(status, b"<html>", "patch").kind, kind, "{status}");
        }
    }

    #[test]
    fn names_cannot_leave_their_path() {
        let api =
            Api { host: "h".into(), port: 1, namespace: "a/b".into(), service_account: "/".into() };
        assert_eq!(api.path(""), "/api/v1/namespaces/a%2Fb/pods");
        assert_eq!(api.path("../x?y"), "/api/v1/namespaces/a%2Fb/pods/%2E%2E%2Fx%3Fy");
    }
}
