//! Credentials in JSON, as the endpoints of containers and instances give them.

use http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;

use super::words::{Credentials, CredentialsError, quoted};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    token: Option<String>,
    expiration: Option<String>,
    /// `Success`, or what is wrong; containers may leave it out.
    code: Option<String>,
}

/// Reads an answer.
///
/// # Errors
/// It is another one.
pub(super) fn read(
    source: &str,
    status: StatusCode,
    body: &[u8],
) -> Result<Credentials, CredentialsError> {
    let fault = |message: String| CredentialsError::new(source, message);
    let document = serde_json::from_slice::<Document>(body);
    let code = document.as_ref().ok().and_then(|document| document.code.as_deref());
    let code = code.filter(|code| *code != "Success");
    if !status.is_success() || code.is_some() {
        return Err(fault(format!("answered {status} {}", quoted(code.unwrap_or_default()))));
    }
    let document = document.map_err(|error| {
        let (line, column) = (error.line(), error.column());
        fault(format!("its answer is not the JSON of credentials: line {line}, column {column}"))
    })?;
    let keys = [&document.access_key_id, &document.secret_access_key, &document.token];
    let found = Credentials::of_keys(source, keys.map(Option::as_deref))?;
    let found = found.ok_or_else(|| fault("its answer has no AccessKeyId".to_owned()))?;
    let expires = document.expiration.as_deref().map(|text| expiration(source, text));
    Ok(Credentials { expires: expires.transpose()?, ..found })
}

/// Reads the end of credentials.
///
/// # Errors
/// It is no time.
pub(super) fn expiration(source: &str, text: &str) -> Result<Timestamp, CredentialsError> {
    text.parse().map_err(|_| CredentialsError::new(source, "its Expiration is not a time"))
}
