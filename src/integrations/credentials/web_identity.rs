//! A role that is assumed with a token in a file: of a service account of EKS, or of another
//! provider of `OpenID` Connect.
//!
//! Source: AWS STS API Reference, `AssumeRoleWithWebIdentity`.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Uri};
use http_body_util::Full;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::ask::{ask, request};
use super::document;
use super::words::{Credentials, CredentialsError, quoted};
use crate::config::{AwsVariables, amazon, read_file};
use crate::integrations::client::HttpClient;

const SOURCE: &str = "the web identity";

/// What the session is called where nobody names it.
const SESSION: &str = "gatecast";

/// See the [module documentation](self).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Role {
    pub(super) arn: String,
    pub(super) token_file: String,
    pub(super) session: Option<String>,
}

/// Which token service is asked, and by what.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokenService<'a> {
    pub(super) variables: &'a AwsVariables,
    pub(super) region: &'a str,
    pub(super) client: &'a HttpClient,
}

impl Role {
    /// Reads which one; `None` if no variable names a token.
    pub(super) fn of_variables(variables: &AwsVariables) -> Result<Option<Self>, CredentialsError> {
        let Some(token_file) = variables.get("AWS_WEB_IDENTITY_TOKEN_FILE") else {
            return Ok(None);
        };
        let message = "AWS_WEB_IDENTITY_TOKEN_FILE is set, and AWS_ROLE_ARN is not; set it";
        let arn = variables.get("AWS_ROLE_ARN");
        let arn = arn.ok_or_else(|| CredentialsError::new(SOURCE, message))?.to_owned();
        let session = variables.get("AWS_ROLE_SESSION_NAME").map(str::to_owned);
        Ok(Some(Self { arn, token_file: token_file.to_owned(), session }))
    }

    /// Asks the token service.
    pub(super) async fn assume(
        self,
        service: TokenService<'_>,
    ) -> Result<Credentials, CredentialsError> {
        let fault = |message: String| CredentialsError::new(SOURCE, message);
        let Self { arn, token_file, session } = self;
        let token =
            read_file(&token_file).map_err(|problem| fault(format!("{token_file}: {problem}")))?;
        let token = str::from_utf8(token.trim_ascii())
            .map_err(|_| fault(format!("{token_file} is not UTF-8")))?;
        let fields = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", &arn),
            ("RoleSessionName", session.as_deref().unwrap_or(SESSION)),
            ("WebIdentityToken", token),
        ];
        let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        let form: Vec<_> =
            fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let uri = endpoint(service.variables, service.region);
        let uri: Uri = uri.parse().map_err(|_| fault("no such token service".to_owned()))?;
        let mut asked = request(Method::POST, uri).map(|_| Full::new(Bytes::from(form.join("&"))));
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        asked.headers_mut().insert(CONTENT_TYPE, form);
        let (status, body) = ask(service.client, asked).await.map_err(fault)?;
        let body = str::from_utf8(&body).unwrap_or_default();
        if !status.is_success() {
            let code = element(body, "Code").unwrap_or_default();
            return Err(fault(format!("the token service answered {status} {}", quoted(code))));
        }
        let inner = element(body, "Credentials").unwrap_or_default();
        let keys = ["AccessKeyId", "SecretAccessKey", "SessionToken"];
        let found = Credentials::of_keys(SOURCE, keys.map(|name| element(inner, name)))?;
        let no_keys = || fault("the token service's answer has no credentials".to_owned());
        let (found, end) = found.zip(element(inner, "Expiration")).ok_or_else(no_keys)?;
        Ok(Credentials { expires: Some(document::expiration(SOURCE, end)?), ..found })
    }
}

/// Returns the token service, of the region as all SDKs have it by now.
fn endpoint(variables: &AwsVariables, region: &str) -> String {
    let given = variables.get("AWS_ENDPOINT_URL_STS").or_else(|| variables.get("AWS_ENDPOINT_URL"));
    let given = given.map(|url| format!("{}/", url.trim_end_matches('/')));
    given.unwrap_or_else(|| format!("https://{}/", amazon("sts", region)))
}

/// Returns what is between a tag of XML and its end. What is looked for has no attributes, is there
/// once, and has no characters that XML writes otherwise.
fn element<'x>(xml: &'x str, name: &str) -> Option<&'x str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(inner, _)| inner.trim())
}
