//! The variables by which operators set up OpenTelemetry everywhere, as settings of our own.
//!
//! As the standard has it, what is not understood is left out and told, and is no fault: these
//! variables are often set for all programs of a host or cluster.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use super::variables::PREFIX;

/// Whether spans can be exported at all.
pub(super) const IS_BUILT_IN: bool = cfg!(feature = "otlp");

/// Returns overrides of our settings, and the variables that are not understood.
pub(super) fn translate(
    otel: &BTreeMap<String, String>,
) -> (BTreeMap<String, String>, Vec<String>) {
    let get =
        |name: &str| otel.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
    let (mut overrides, mut not_understood) = (BTreeMap::new(), Vec::new());
    let mut set = |key: &str, value: String| {
        overrides.insert(format!("{PREFIX}TRACING_{key}"), value);
    };
    let is_off = get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || get("OTEL_TRACES_EXPORTER") == Some("none");
    let own = get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").map(str::to_owned);
    let shared = || {
        get("OTEL_EXPORTER_OTLP_ENDPOINT")
            .map(|url| format!("{}/v1/traces", url.trim_end_matches('/')))
    };
    match own.or_else(shared) {
        _ if is_off => set("ENDPOINT", String::new()),
        Some(url) if IS_BUILT_IN && is_collector(&url) => set("ENDPOINT", url),
        Some(_) => not_understood.push("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned()),
        None => {}
    }
    match get("OTEL_TRACES_SAMPLER").map(|name| ratio(name, get("OTEL_TRACES_SAMPLER_ARG"))) {
        Some(Some(ratio)) => set("RATIO", ratio.to_string()),
        Some(None) => not_understood.push("OTEL_TRACES_SAMPLER".to_owned()),
        None => {}
    }
    let name = get("OTEL_SERVICE_NAME");
    let pairs = get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default().split(',').map(str::trim);
    // Of two names, that of the variable for it counts.
    let is_name = |pair: &str| name.is_some() && pair.starts_with("service.name=");
    let pairs: Vec<_> = pairs.filter(|pair| !pair.is_empty() && !is_name(pair)).collect();
    let all_understood = pairs.iter().all(|pair| attribute(pair).is_some());
    match (pairs.is_empty(), all_understood) {
        (true, _) => {}
        (false, true) => set("ATTRIBUTES", pairs.join(",")),
        (false, false) => not_understood.push("OTEL_RESOURCE_ATTRIBUTES".to_owned()),
    }
    if let Some(name) = name {
        set("SERVICE_NAME", name.to_owned());
    }
    (overrides, not_understood)
}

/// Reads `KEY=VALUE`, the value percent-encoded where it has to be.
pub(super) fn attribute(text: &str) -> Option<(String, String)> {
    let (key, value) = text.split_once('=')?;
    let (key, value) = (key.trim(), percent_decode_str(value.trim()).decode_utf8().ok()?);
    (!key.is_empty()).then(|| (key.to_owned(), value.into_owned()))
}

/// Returns the share that a sampler of the standard takes. All here heed a caller's decision, as
/// those called `parentbased_` do.
fn ratio(sampler: &str, argument: Option<&str>) -> Option<f64> {
    match sampler.strip_prefix("parentbased_").unwrap_or(sampler) {
        "always_on" => Some(1.0),
        "always_off" => Some(0.0),
        "traceidratio" => {
            let ratio = argument.map_or(Ok(1.0), str::parse).ok()?;
            (0.0..=1.0).contains(&ratio).then_some(ratio)
        }
        _ => None,
    }
}

/// Returns whether spans can be posted there. A password in it would be logged.
pub(super) fn is_collector(url: &str) -> bool {
    url.parse::<http::Uri>().is_ok_and(|url| {
        url.scheme_str() == Some("http")
            && url.authority().is_some_and(|it| !it.as_str().contains('@'))
    })
}
