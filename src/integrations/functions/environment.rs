//! The environment of a function's process: what Lambda sets, and nothing of the node's own.

use std::collections::BTreeMap;

use jiff::Timestamp;
use uuid::Uuid;

use super::common::Common;
use crate::config::{FunctionSettings, Runtime};

/// Where programs are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/bin";

/// Nobody is limited to it; libraries read it.
const MEMORY_SIZE: &str = "1024";

const NODE_OPTIONS: &str = "NODE_OPTIONS";

/// Returns the variables of a process that asks `port` of this host for work. A function's own are
/// stronger than those that all have; what says who the process is cannot be set
/// (`config::kinds::maps`).
pub(super) fn variables(
    settings: &FunctionSettings,
    common: &Common,
    port: u16,
) -> BTreeMap<String, String> {
    let name = &settings.name;
    let date = Timestamp::now().strftime("%Y/%m/%d");
    let stream = format!("{date}/[$LATEST]{}", Uuid::new_v4().simple());
    let (execution, handler) = match settings.runtime {
        // The bootstrap adds the version.
        Runtime::Node => ("AWS_Lambda_nodejs", ""),
        Runtime::Python => ("AWS_Lambda_python3.12", ""),
        Runtime::Command => ("AWS_Lambda_provided.al2023", "bootstrap"),
    };
    let code = settings.code.display();
    let variables = BTreeMap::from([
        ("PATH", common.path.as_deref().unwrap_or(PATH).to_owned()),
        ("TZ", ":UTC".to_owned()),
        ("LANG", "en_US.UTF-8".to_owned()),
        ("AWS_REGION", common.region.clone()),
        ("AWS_DEFAULT_REGION", common.region.clone()),
        ("AWS_EXECUTION_ENV", execution.to_owned()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned()),
        ("AWS_LAMBDA_LOG_FORMAT", "Text".to_owned()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{name}")),
        ("AWS_LAMBDA_LOG_STREAM_NAME", stream),
        ("AWS_XRAY_CONTEXT_MISSING", "LOG_ERROR".to_owned()),
        ("AWS_XRAY_DAEMON_ADDRESS", "127.0.0.1:2000".to_owned()),
        ("PYTHONUNBUFFERED", "1".to_owned()),
    ]);
    let mut variables: BTreeMap<_, _> =
        variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    variables.extend(common.environment_of.get(name).into_iter().flatten().cloned());
    let options = variables.get(NODE_OPTIONS).cloned();
    let own =
        settings.environment.iter().map(|(name, value)| (name.clone(), value.expose().to_owned()));
    variables.extend(own);
    // What both ask for.
    if let (Some(options), Some(own)) = (options, settings.environment.get(NODE_OPTIONS)) {
        variables.insert(NODE_OPTIONS.to_owned(), format!("{options} {}", own.expose()));
    }
    let fixed = [
        ("AWS_LAMBDA_RUNTIME_API", format!("127.0.0.1:{port}")),
        ("_HANDLER", settings.handler.as_deref().unwrap_or(handler).to_owned()),
        ("LAMBDA_TASK_ROOT", code.to_string()),
        ("LAMBDA_RUNTIME_DIR", code.to_string()),
        ("AWS_LAMBDA_FUNCTION_NAME", name.clone()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", MEMORY_SIZE.to_owned()),
    ];
    variables.extend(fixed.map(|(name, value)| (name.to_owned(), value)));
    if settings.concurrency > 1 {
        variables.insert("AWS_LAMBDA_MAX_CONCURRENCY".to_owned(), settings.concurrency.to_string());
    }
    variables
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Secret;

    #[test]
    fn a_functions_own_variables_are_stronger_and_who_it_is_cannot_be_set() {
        let settings = FunctionSettings {
            name: "send".to_owned(),
            runtime: Runtime::Node,
            handler: Some("index.handler".to_owned()),
            code: "/code".into(),
            command: Vec::new(),
            timeout: Duration::from_secs(1),
            min_processes: 0,
            max_processes: 1,
            concurrency: 3,
            environment: [("AWS_REGION", "eu-west-1"), ("NODE_OPTIONS", "--trace-warnings")]
                .map(|(name, value)| (name.to_owned(), Secret::new(value)))
                .into(),
            hosts: BTreeMap::new(),
            callback_domain: None,
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let common = Common {
            watches: false,
            region: "us-east-1".to_owned(),
            path: None,
            environment_of: [(
                "send".to_owned(),
                vec![
                    pair("AWS_CA_BUNDLE", "/own.pem"),
                    pair("LAMBDA_TASK_ROOT", "/wrong"),
                    pair("NODE_OPTIONS", "--require /shim.cjs"),
                ],
            )]
            .into(),
        };
        let variables = variables(&settings, &common, 4_711);
        for (name, value) in [
            ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:4711"),
            ("_HANDLER", "index.handler"),
            ("LAMBDA_TASK_ROOT", "/code"),
            ("AWS_REGION", "eu-west-1"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("AWS_CA_BUNDLE", "/own.pem"),
            ("NODE_OPTIONS", "--require /shim.cjs --trace-warnings"),
            ("AWS_LAMBDA_MAX_CONCURRENCY", "3"),
            ("TZ", ":UTC"),
        ] {
            assert_eq!(variables.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!variables.contains_key("HOME") && !variables.contains_key("AWS_SESSION_TOKEN"));
    }
}
