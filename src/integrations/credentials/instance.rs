//! The metadata service of an EC2 instance, version 2: a token first, then the role's name, then
//! its credentials.
//!
//! Source: Amazon EC2 User Guide, "Use the Instance Metadata Service".

use http::{HeaderValue, Method, Uri};

use super::ask::{self, request};
use super::document;
use super::words::{Credentials, CredentialsError, quoted};
use crate::config::AwsVariables;
use crate::integrations::client::HttpClient;

const SOURCE: &str = "the instance's metadata";

const ADDRESS: &str = "http://169.254.169.254";

const ROLES: &str = "/latest/meta-data/iam/security-credentials/";

/// For as long as a token is good, in seconds: one is asked for each time.
const TOKEN_LIFE: &str = "60";

/// What there is to say where no source is set up, and this is no instance.
const CURE: &str = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, a web identity, or a role for this container or \
     instance; or auth = \"none\" for an endpoint that asks for no signature";

pub(super) async fn ask(
    variables: &AwsVariables,
    client: &HttpClient,
) -> Result<Credentials, CredentialsError> {
    let fault = |message: String| CredentialsError::new(SOURCE, message);
    if variables.get("AWS_EC2_METADATA_DISABLED").is_some_and(|it| it.eq_ignore_ascii_case("true"))
    {
        return Err(CredentialsError::new("no source is set up", CURE));
    }
    let base = variables.get("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or(ADDRESS);
    let base = base.trim_end_matches('/');
    let uri = |path: &str| -> Result<Uri, CredentialsError> {
        let uri = format!("{base}{path}").parse();
        uri.map_err(|_| fault("it has no such address".to_owned()))
    };
    let mut asked = request(Method::PUT, uri("/latest/api/token")?);
    let life = HeaderValue::from_static(TOKEN_LIFE);
    asked.headers_mut().insert("x-aws-ec2-metadata-token-ttl-seconds", life);
    let nowhere = |problem: String| fault(format!("{problem}; {CURE}"));
    let (status, token) = ask::ask(client, asked).await.map_err(nowhere)?;
    if !status.is_success() {
        return Err(fault(format!("answered {status} to PUT /latest/api/token")));
    }
    let mut token = HeaderValue::from_bytes(token.trim_ascii())
        .map_err(|_| fault("its token is none".to_owned()))?;
    token.set_sensitive(true);
    let get = async |path: &str| {
        let mut asked = request(Method::GET, uri(path)?);
        asked.headers_mut().insert("x-aws-ec2-metadata-token", token.clone());
        ask::ask(client, asked).await.map_err(fault)
    };
    let (status, names) = get(ROLES).await?;
    let role = str::from_utf8(&names).ok().and_then(|names| names.lines().next());
    let role = role.filter(|role| status.is_success() && is_role(role)).ok_or_else(|| {
        fault(format!("answered {status} where the instance's role is named; give it one"))
    })?;
    let (status, body) = get(&format!("{ROLES}{role}")).await?;
    document::read(&format!("{SOURCE}, role {}", quoted(role)), status, &body)
}

/// What IAM allows in a role's name.
fn is_role(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(is_plain)
}
