//! Reads `[lambdas]`: functions that run elsewhere.

use http::Uri;
use serde_json::Value;

use super::aws::{AwsVariables, amazon};
use super::kinds::lambda::{FunctionName, Region};
use super::kinds::texts::Url;
use super::reader::{Reader, Section};
use super::row::Kind;
use super::settings::{LambdaAuth, LambdaSettings};
use super::table::{lambda, node};
use super::targets::{TARGETS_MAX, named, tables};

impl Kind for Vec<LambdaSettings> {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        tables()
    }
}

/// Takes `[lambdas]`.
pub(super) fn read(reader: &mut Reader<'_>, variables: &AwsVariables) -> Vec<LambdaSettings> {
    let mut lambdas = Vec::new();
    for (name, section) in named(reader, &node::lambdas, TARGETS_MAX) {
        lambdas.extend(one(reader, variables, name, section));
    }
    reader.settle(&node::lambdas, lambdas)
}

fn one<'d>(
    reader: &mut Reader<'d>,
    variables: &AwsVariables,
    name: String,
    mut section: Section<'d>,
) -> Option<LambdaSettings> {
    let before = reader.fault_count();
    let function = reader.take_from(&mut section, &lambda::function);
    let endpoint = reader.take_from(&mut section, &lambda::endpoint).map(|Url(uri)| uri);
    let auth = reader.take_from(&mut section, &lambda::auth);
    let region = reader.take_from(&mut section, &lambda::region).map(|Region(region)| region);
    let profile = reader.take_from(&mut section, &lambda::profile);
    let timeout = reader.take_from(&mut section, &lambda::timeout);
    let max_in_flight = reader.take_from(&mut section, &lambda::max_in_flight);
    let max_waiting = reader.take_from(&mut section, &lambda::max_waiting);
    let is_faulty = reader.fault_count() > before;
    let mut fault = |key: &str, message: &str| reader.fault_in(&section, key, message);
    if function.is_none() && !is_faulty {
        fault("function", "missing; set it to a function's name or ARN");
    }
    if endpoint.as_ref().is_some_and(|endpoint| endpoint.query().is_some()) {
        fault("endpoint", "an address without a query; write it without \"?\"");
    }
    let in_arn = function.as_ref().and_then(|FunctionName { region, .. }| region.clone());
    if in_arn.is_some() && region.is_some() && in_arn != region {
        fault("region", "not the region of the function's ARN; remove it");
    }
    let is_plain = endpoint.as_ref().is_some_and(|it| it.scheme_str() == Some("http"));
    let auth = auth.unwrap_or(if is_plain { LambdaAuth::None } else { LambdaAuth::SigV4 });
    if auth == LambdaAuth::None && profile.is_some() {
        fault("profile", "nothing is signed with it; write auth = \"sigv4\", or remove it");
    }
    let from_variables =
        || ["AWS_REGION", "AWS_DEFAULT_REGION"].into_iter().find_map(|it| variables.get(it));
    let region = in_arn.or(region).or_else(|| from_variables().map(str::to_owned));
    if region.is_none() && auth == LambdaAuth::SigV4 && !is_faulty {
        let message = "missing; set it, or AWS_REGION, or name the function by its ARN";
        fault("region", message);
    }
    reader.finish(section);
    let region = region.unwrap_or_default();
    let of_amazon = || format!("https://{}", amazon("lambda", &region)).parse::<Uri>().ok();
    let (function, endpoint) = (function?.text, endpoint.or_else(of_amazon)?);
    Some(LambdaSettings {
        name,
        function,
        endpoint,
        auth,
        region,
        profile,
        timeout,
        max_in_flight,
        max_waiting,
    })
}
