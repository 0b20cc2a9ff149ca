//! Lambda functions that run elsewhere, by the Invoke API: Amazon's, or an emulator's.
//!
//! Every call is awaited, hence of the type `RequestResponse`. The function is named in the path,
//! its alias or version with it: emulators refuse a query.
//!
//! Source: AWS Lambda API reference, "Invoke".

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::Full;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::RootCertStore;
use serde_json::Value;

use crate::config::LambdaSettings;
use crate::integrations::client::{self, HttpClient, MAX_BODY};
use crate::integrations::credentials::Keeper;
use crate::integrations::invoke::{Invocation, Invoke, InvokeError};
use crate::integrations::target::Failure;
use crate::model::call::CallError;
use crate::model::trail::{AMAZON, Trail};
use crate::sigv4::{Signer, Unsigned};

/// Longest event that Lambda takes.
const MAX_EVENT: usize = 6 << 20;

/// Longest part of what an endpoint says that is repeated in the log, in characters.
const QUOTED: usize = 200;

/// What is percent-encoded in a function's name.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Lambda {
    uri: Uri,
    /// Value of `Host`, which is signed.
    host: HeaderValue,
    region: String,
    client: HttpClient,
    /// `None`: nothing is signed.
    credentials: Option<Arc<Keeper>>,
}

/// What an endpoint has answered besides the body.
struct Head {
    status: StatusCode,
    /// Which error of the API it is.
    error: Option<String>,
    /// Whether the function has failed.
    is_function_error: bool,
}

impl Lambda {
    /// Makes ready to call a function; signs if there are credentials.
    ///
    /// # Errors
    /// The endpoint and the name together are no address.
    pub(crate) fn new(
        settings: &LambdaSettings,
        credentials: Option<Arc<Keeper>>,
        roots: &Arc<RootCertStore>,
    ) -> Result<Self, http::Error> {
        let name = utf8_percent_encode(&settings.function, RESERVED);
        let base = settings.endpoint.path().trim_end_matches('/');
        let mut parts = settings.endpoint.clone().into_parts();
        let path = format!("{base}/2015-03-31/functions/{name}/invocations");
        parts.path_and_query = Some(path.parse()?);
        let uri = Uri::from_parts(parts)?;
        let host = HeaderValue::from_str(&host_of(&uri))?;
        let client = HttpClient::new(roots);
        Ok(Self { uri, host, region: settings.region.clone(), client, credentials })
    }

    async fn carry_out(&self, event: Bytes, trail: Trail) -> Result<Bytes, InvokeError> {
        if event.len() > MAX_EVENT {
            let message =
                format!("an event of {} bytes; at most {MAX_EVENT} are taken", event.len());
            return Err(InvokeError::Function { kind: "RequestTooLarge".to_owned(), message });
        }
        let (mut request, key_id) = self.request(event).await?;
        // Not signed, as in the SDKs: what is on the way may change it.
        request.headers_mut().insert(AMAZON, Trail::header(&trail.amazon()));
        let response = self.client.send(request).await.map_err(broken)?;
        let (parts, body) = response.into_parts();
        let head = Head::of(parts.status, &parts.headers);
        let body = client::read(body, MAX_BODY).await.map_err(broken)?;
        if let (Some(keeper), Some(key_id)) = (&self.credentials, key_id)
            && head.refuses_credentials()
        {
            keeper.discard(&key_id);
        }
        head.judge(body)
    }

    /// Returns a request, and the id of the key that it is signed with.
    async fn request(
        &self,
        event: Bytes,
    ) -> Result<(Request<Full<Bytes>>, Option<String>), InvokeError> {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, self.host.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("x-amz-invocation-type", HeaderValue::from_static("RequestResponse"));
        let mut key_id = None;
        if let Some(keeper) = &self.credentials {
            let unreachable = |error: String| InvokeError::Unreachable(error);
            let found = keeper.get().await.map_err(|error| unreachable(error.to_string()))?;
            let signer = Signer {
                key_id: &found.key_id,
                secret: found.secret.expose(),
                session_token: found.session_token.as_ref().map(|token| token.expose()),
                region: &self.region,
                service: "lambda",
            };
            let (method, path) = (&Method::POST, self.uri.path());
            let unsigned = Unsigned { method, path, query: None, body: &event };
            let signed = signer.sign(unsigned, &mut headers, SystemTime::now());
            signed.map_err(|_| unreachable("credentials that no header can have".to_owned()))?;
            key_id = Some(found.key_id.clone());
        }
        let mut request = Request::new(Full::new(event));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        Ok((request, key_id))
    }
}

impl Invoke for Lambda {
    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, Result<Bytes, InvokeError>> {
        Box::pin(self.carry_out(invocation.event, invocation.trail))
    }
}

impl Head {
    fn of(status: StatusCode, headers: &HeaderMap) -> Self {
        let error = headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok());
        // Some are followed by a colon and an address.
        let error = error.and_then(|value| value.split(':').next()).map(quoted);
        let is_function_error = headers.contains_key("x-amz-function-error");
        Self { status, error, is_function_error }
    }

    /// Returns whether other credentials may help.
    fn refuses_credentials(&self) -> bool {
        let error = self.error.as_deref().unwrap_or_default();
        ["ExpiredToken", "UnrecognizedClient"].iter().any(|start| error.starts_with(start))
    }

    /// Returns the result, or what has become of the call. Emulators tell of a function's error by
    /// the shape of the result alone, which whoever reads it sees.
    fn judge(self, body: Bytes) -> Result<Bytes, InvokeError> {
        let value = || serde_json::from_slice::<Value>(&body).unwrap_or_default();
        let field = |names: &[&str]| {
            let value = value();
            names.iter().find_map(|name| value.get(name)?.as_str().map(quoted))
        };
        if self.status.is_success() && !self.is_function_error {
            return Ok(body);
        }
        let message = field(&["errorMessage", "Message", "message", "Reason"]).unwrap_or_default();
        let kind = self.error.clone().or_else(|| field(&["errorType"]));
        if self.is_function_error {
            let kind = kind.unwrap_or_else(|| "Error".to_owned());
            return Err(InvokeError::Function { kind, message });
        }
        let told = format!("{} {} {message}", self.status, kind.as_deref().unwrap_or_default());
        let told = told.trim_end().to_owned();
        let is_crash = self.error.is_none() && kind.is_some();
        match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::CONFLICT => {
                Err(InvokeError::Overload(told))
            }
            // Of an emulator whose function has exited.
            status if status.is_server_error() && !is_crash => Err(InvokeError::Unreachable(told)),
            _ if self.refuses_credentials() => Err(InvokeError::Unreachable(told)),
            _ => Err(InvokeError::Function {
                kind: "the endpoint has refused".to_owned(),
                message: told,
            }),
        }
    }
}

fn broken(Failure { error, message }: Failure) -> InvokeError {
    match error {
        CallError::Unreachable => InvokeError::Unreachable(message),
        _ => InvokeError::Function { kind: "the connection has failed".to_owned(), message },
    }
}

/// Returns the host with the port, unless that is the scheme's own.
fn host_of(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    let own = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    match uri.port_u16().filter(|port| *port != own) {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn quoted(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(QUOTED).collect()
}

#[cfg(test)]
mod tests;
