//! Profiles in the files that the SDKs and the AWS CLI share.
//!
//! Source: AWS SDKs and Tools Reference Guide, "Format of the config and credentials files".

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::web_identity::Role;
use super::words::{Credentials, CredentialsError};
use crate::config::{AwsVariables, read_file};

/// What a profile may get its credentials by that is not read here.
const OTHERS: [&str; 5] =
    ["credential_process", "credential_source", "role_arn", "sso_session", "sso_start_url"];

/// What a profile holds.
#[derive(Debug)]
pub(super) enum Found {
    Keys(Credentials),
    Role(Role),
}

type Keys = BTreeMap<String, String>;

/// Looks for a profile, the one that the variables name unless another is; `None` if it has no
/// credentials and nobody has named it.
pub(super) fn find(
    variables: &AwsVariables,
    named: Option<&str>,
) -> Result<Option<Found>, CredentialsError> {
    let named = named.or_else(|| variables.get("AWS_PROFILE"));
    let name = named.unwrap_or("default");
    let fault = |message: String| CredentialsError::new(&format!("profile {name:?}"), message);
    let file = |variable, usual| {
        let home = || Some(Path::new(variables.get("HOME")?).join(usual));
        variables.get(variable).map(PathBuf::from).or_else(home)
    };
    let credentials = file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials");
    let config = file("AWS_CONFIG_FILE", ".aws/config");
    // What stands in the first is stronger.
    let mut keys = Keys::new();
    let mut is_there = false;
    for (path, section) in [(config, format!("profile {name}")), (credentials, name.to_owned())] {
        let Some(path) = path.filter(|path| path.exists()) else { continue };
        let text = read_file(&path).map_err(|it| fault(format!("{}: {it}", path.display())))?;
        let found = section_of(&String::from_utf8_lossy(&text), &section, name);
        is_there |= found.is_some();
        keys.extend(found.unwrap_or_default());
    }
    let get = |name: &str| keys.get(name).map(String::as_str);
    let wanted = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"];
    if let (Some(arn), Some(token_file)) = (get("role_arn"), get("web_identity_token_file")) {
        let (arn, token_file) = (arn.to_owned(), token_file.to_owned());
        let session = get("role_session_name").map(str::to_owned);
        return Ok(Some(Found::Role(Role { arn, token_file, session })));
    }
    if let Some(other) = OTHERS.iter().find(|other| keys.contains_key(**other)) {
        let message = format!(
            "{other} is not read here; write keys, or role_arn with web_identity_token_file, or have \
             `aws configure export-credentials` set variables"
        );
        return Err(fault(message));
    }
    let found = Credentials::of_keys(&format!("profile {name:?}"), wanted.map(get))?;
    if found.is_none() && named.is_some() {
        let message = if is_there { "has no aws_access_key_id" } else { "is not there" };
        return Err(fault(format!("it {message}, in the files of credentials and configuration")));
    }
    Ok(found.map(Found::Keys))
}

/// Returns the keys of a section; `default` is called so in both files. What is indented belongs to
/// the key before it, and is not needed.
fn section_of(text: &str, section: &str, name: &str) -> Option<Keys> {
    let mut keys: Option<Keys> = None;
    let mut is_inside = false;
    for line in text.lines() {
        if line.starts_with([' ', '\t', '#', ';']) {
            continue;
        }
        if let Some(title) = line.strip_prefix('[') {
            let title = title.split(']').next().unwrap_or_default();
            let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
            is_inside = title == section || (name == "default" && title == name);
            keys = keys.or_else(|| is_inside.then(Keys::new));
        } else if is_inside && let Some((key, value)) = line.split_once('=') {
            let value = [" #", "\t#", " ;", "\t;"].iter().fold(value, |value, comment| {
                value.split_once(comment).map_or(value, |(value, _)| value)
            });
            let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
            keys.get_or_insert_default().insert(key, value.to_owned());
        }
    }
    keys
}
