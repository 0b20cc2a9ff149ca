//! The endpoint of a container: of Amazon ECS, or of EKS Pod Identity.
//!
//! Source: AWS SDKs and Tools Reference Guide, "Container credential provider".

use std::net::IpAddr;

use http::header::AUTHORIZATION;
use http::{HeaderValue, Method, Uri};

use super::ask::{ask, request};
use super::document;
use super::words::{Credentials, CredentialsError};
use crate::config::{AwsVariables, read_file};
use crate::integrations::client::HttpClient;

const SOURCE: &str = "the container's endpoint";

/// Where ECS answers.
const ECS: &str = "http://169.254.170.2";

/// Who may be asked without TLS, besides this host: ECS, and EKS by either address.
const KNOWN: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct Container {
    uri: Uri,
    token: Option<HeaderValue>,
}

impl Container {
    /// Reads where it is; `None` if no variable names one.
    pub(super) fn of(variables: &AwsVariables) -> Result<Option<Self>, CredentialsError> {
        let fault = |message: String| CredentialsError::new(SOURCE, message);
        let relative = variables.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
        let uri = match (relative, variables.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")) {
            (Some(relative), _) => format!("{ECS}/{}", relative.trim_start_matches('/')),
            (None, Some(full)) => full.to_owned(),
            (None, None) => return Ok(None),
        };
        let uri: Uri = uri.parse().map_err(|_| fault("the variable names no URI".to_owned()))?;
        if !may_be_asked(&uri) {
            let message = "AWS_CONTAINER_CREDENTIALS_FULL_URI is http:// of another host than this, ECS's or EKS's; use https://";
            return Err(fault(message.to_owned()));
        }
        let token = match variables.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            Some(path) => {
                let text =
                    read_file(path).map_err(|problem| fault(format!("{path}: {problem}")))?;
                Some(text.trim_ascii().to_vec())
            }
            None => variables
                .get("AWS_CONTAINER_AUTHORIZATION_TOKEN")
                .map(|token| token.as_bytes().to_vec()),
        };
        let token = token.map(|token| {
            let mut value = HeaderValue::from_bytes(&token).map_err(|_| {
                fault("its authorization token has line ends or the like".to_owned())
            })?;
            value.set_sensitive(true);
            Ok(value)
        });
        Ok(Some(Self { uri, token: token.transpose()? }))
    }

    pub(super) async fn ask(self, client: &HttpClient) -> Result<Credentials, CredentialsError> {
        let mut request = request(Method::GET, self.uri);
        if let Some(token) = self.token {
            request.headers_mut().insert(AUTHORIZATION, token);
        }
        let answer = ask(client, request).await;
        let (status, body) = answer.map_err(|message| CredentialsError::new(SOURCE, message))?;
        document::read(SOURCE, status, &body)
    }
}

/// The answer is a secret, and so is the token.
fn may_be_asked(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_local =
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => true,
        Some("http") => is_local || KNOWN.contains(&host),
        _ => false,
    }
}
