//! Asks sources that answer over HTTP.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Full;

use crate::integrations::client::{self, HttpClient};
use crate::integrations::target::Failure;

/// Longest answer of a source, in bytes.
const ANSWER_MAX: usize = 64 << 10;

/// For one answer of a source.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// Sends a request, and returns the whole answer.
///
/// # Errors
/// What is wrong with the way, not with the answer.
pub(super) async fn ask(
    client: &HttpClient,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), String> {
    let uri = request.uri().clone();
    let answer = async {
        let (head, body) = client.send(request).await?.into_parts();
        Ok((head.status, client::read(body, ANSWER_MAX).await?))
    };
    let place = || place_of(&uri);
    match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
        Ok(answer) => {
            answer.map_err(|failure: Failure| format!("{}: {}", place(), failure.message))
        }
        Err(_) => Err(format!("{} has not answered within {ANSWER_TIMEOUT:?}", place())),
    }
}

/// Makes a request without a body.
pub(super) fn request(method: Method, uri: Uri) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    request
}

fn place_of(uri: &Uri) -> String {
    uri.authority().map(ToString::to_string).unwrap_or_default()
}
