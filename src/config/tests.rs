//! What is accepted, what is refused, and how that is said.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::settings::PerAddress;
use super::table::ROWS;
use super::*;
use crate::routing::route::BUILT_IN;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let overrides =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let sources = Sources {
        file: Some(("gatecast.toml".to_owned(), text.to_owned())),
        overrides,
        ..Sources::default()
    };
    Config::load(&sources).map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

#[test]
fn defaults_are_those_of_the_contract() {
    let config = Config::load(&Sources::default()).expect("valid");
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:9090");
    assert_eq!(config.stage, "beta");
    let limits = config.limits;
    assert_eq!((limits.frame_bytes, limits.message_bytes), (32 << 10, 128 << 10));
    assert_eq!((limits.idle_timeout, limits.max_lifetime), (600 * SECOND, 2 * HOUR));
    assert_eq!(limits.ping_interval, Some(25 * SECOND));
    assert!(!limits.allow_binary);
    assert_eq!(config.management.auth, ManagementAuth::Local);
    assert!(matches!(config.auth.allowed_origins, Origins::Local));
}

#[test]
fn examples_are_valid() {
    for (name, text) in [
        ("chat", BUILT_IN),
        ("simple-chat", include_str!("../../deploy/examples/simple-chat.toml")),
        ("echo", include_str!("../../deploy/examples/echo.toml")),
    ] {
        assert!(load(text, &[]).is_ok(), "{name}: {:?}", load(text, &[]).err());
    }
}

#[test]
fn environment_is_stronger_than_the_file() {
    let file = "stage = \"prod\"\n[limits]\nidle_timeout = \"1m\"\nping_interval = \"5s\"\n";
    let variables = [
        ("GATECAST_LIMITS_IDLE_TIMEOUT", "90s"),
        ("GATECAST_LIMITS_PING_INTERVAL", "off"),
        ("GATECAST_AUTH_ALLOWED_ORIGINS", "https://a.example, https://b.example"),
    ];
    let config = load(file, &variables).expect("valid");
    assert_eq!(config.stage, "prod");
    assert_eq!(config.limits.idle_timeout, 90 * SECOND);
    assert_eq!(config.limits.ping_interval, None);
    let Origins::Listed(origins) = config.auth.allowed_origins else { panic!("a list") };
    let origins: Vec<_> = origins.iter().map(ToString::to_string).collect();
    assert_eq!(origins, ["https://a.example", "https://b.example"]);
}

#[test]
fn unknown_variables_are_told_but_not_those_of_kubernetes() {
    let variables = [
        ("GATECAST_LIMITS_IDEL_TIMEOUT", "1m"),
        ("GATECAST_LIMITS_IDLE_TIMEOUT", "1m"),
        ("GATECAST_SERVICE_HOST", "10.0.0.1"),
        ("GATECAST_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
    ];
    let config = load("", &variables).expect("valid");
    let expected = "the variable GATECAST_LIMITS_IDEL_TIMEOUT is not a setting; did you mean GATECAST_LIMITS_IDLE_TIMEOUT?";
    assert_eq!(config.warnings, [expected]);
}

#[test]
fn every_fault_is_reported_at_once_with_its_line() {
    let file = r#"stage = "no spaces"
lisetn = "127.0.0.1:1"
[limits]
idle_timeout = "soon"
max_connections = 0
frame_bytes = [1]
[routes.hello]
integration = "shout"
[routes.lost]
integration = "broadcast"
[routes."$nope"]
integration = "mock"
[routes."$connect"]
integration = "join"
group = "${request.body.x"
"#;
    let faults = load(file, &[("GATECAST_DRAIN_WINDOW", "10 parsecs")]).expect_err("faults");
    let expected = [
        ("gatecast.toml:1: stage: ", "letters, digits"),
        ("gatecast.toml:2: lisetn: ", "did you mean \"listen\"?"),
        ("gatecast.toml:4: limits.idle_timeout: ", "\"soon\" is not a duration, such as"),
        ("gatecast.toml:5: limits.max_connections: ", "0 is not within 1 to"),
        ("gatecast.toml:6: limits.frame_bytes: ", "expected a whole number"),
        ("gatecast.toml:8: routes.hello.integration: ", "unknown integration \"shout\""),
        ("gatecast.toml:9: routes.lost.data: ", "missing; for instance data ="),
        ("gatecast.toml:11: routes.$nope: ", "may not start with $"),
        ("gatecast.toml:14: routes.$connect.integration: ", "needs an open connection"),
        ("gatecast.toml:15: routes.$connect.group: ", "\"${\" without its \"}\""),
        ("GATECAST_DRAIN_WINDOW: drain.window: ", "is not a duration"),
    ];
    for (start, part) in expected {
        let found = faults.iter().any(|fault| fault.starts_with(start) && fault.contains(part));
        assert!(found, "{start}…{part} in {faults:#?}");
    }
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
}

#[test]
fn a_memory_budget_must_be_enough_to_work_with() {
    for (setting, fault) in
        [("0", None), ("16777216", None), ("16777215", Some("set at least 16777216, or 0"))]
    {
        let loaded = load(&format!("[limits]\nmemory_budget = {setting}\n"), &[]);
        match fault {
            None => assert!(loaded.is_ok(), "{setting}"),
            Some(part) => {
                let faults = loaded.expect_err("a fault");
                assert!(
                    faults[0].starts_with("gatecast.toml:2: limits.memory_budget: "),
                    "{faults:?}"
                );
                assert!(faults[0].contains(part), "{faults:?}");
            }
        }
    }
}

#[test]
fn broken_toml_is_one_fault_with_its_line() {
    let faults = load("stage = \"beta\"\nlisten = \n", &[]).expect_err("a fault");
    assert!(faults[0].starts_with("gatecast.toml:2: "), "{faults:?}");
    assert_eq!(faults.len(), 1);
}

#[test]
fn open_management_api_is_refused_unless_asked_for_by_name() {
    let faults = load("listen = \"0.0.0.0:8080\"", &[]).expect_err("a fault");
    assert!(
        faults[0].contains("reachable from other hosts") && faults[0].contains("management.auth"),
        "{faults:?}"
    );
    let admin = load("admin_listen = \"[::]:9090\"", &[]).expect_err("a fault");
    assert!(admin[0].contains("[::]:9090"), "{admin:?}");
    let asked =
        load("listen = \"0.0.0.0:8080\"\n[management]\nauth = \"none\"", &[]).expect("valid");
    assert_eq!(asked.management.auth, ManagementAuth::None);
    let keys =
        [("GATECAST_ACCESS_KEY_ID", "AKIDEXAMPLE"), ("GATECAST_SECRET_ACCESS_KEY", "not a secret")];
    let signed = load("listen = \"0.0.0.0:8080\"", &keys).expect("valid");
    assert_eq!(signed.management.auth, ManagementAuth::SigV4);
    let half = load("", &keys[..1]).expect_err("a fault");
    assert!(half[0].contains("set both or none"), "{half:?}");
    let empty = load("", &[keys[0], ("GATECAST_SECRET_ACCESS_KEY", "")]).expect_err("a fault");
    assert!(empty.iter().any(|fault| fault.contains("secret_access_key")), "{empty:?}");
}

#[test]
fn keys_of_the_list_are_read_and_never_shown() {
    let file = "[[management.keys]]\nid = \"ONE\"\nsecret = \"first-hidden\"\n[[management.keys]]\nid = \"TWO\"\nsecret = \"second-hidden\"\n";
    let config = load(file, &[]).expect("valid");
    let ids: Vec<_> = config.management.keys.iter().map(|key| key.id.as_str()).collect();
    assert_eq!(ids, ["ONE", "TWO"]);
    assert!(!format!("{config:?}").contains("hidden"));
    let twice = load(&file.replace("TWO", "ONE"), &[]).expect_err("a fault");
    assert!(twice[0].contains("ONE"), "{twice:?}");
    let faulty = load("[[management.keys]]\nid = \"ONE\"\nsecret = [\"hidden\"]\n", &[])
        .expect_err("a fault");
    assert!(!faulty.join(" ").contains("hidden"), "{faulty:?}");
}

#[test]
fn of_the_rules_for_groups_the_first_that_matches_counts() {
    let file = "[[groups]]\npattern = \"ticks-slow-*\"\n[[groups]]\npattern = \"ticks-*\"\nreplay = \"off\"\n";
    let groups = load(file, &[]).expect("valid").groups;
    assert!(groups.keeps("moon") && groups.keeps("ticks-slow-eur") && !groups.keeps("ticks-eur"));
    for (file, expected) in [
        ("[[groups]]\nreplay = \"off\"\n", "groups.pattern: missing; for instance"),
        ("[[groups]]\npattern = \"a\"\nreplay = \"maybe\"\n", "\"maybe\" is not \"on\" or \"off\""),
        ("[[groups]]\npattern = \"\"\n", "is not a group's name"),
        ("[groups]\npattern = \"a\"\n", "write [[groups]]"),
    ] {
        let faults = load(file, &[]).expect_err("a fault");
        assert!(faults.len() == 1 && faults[0].contains(expected), "{faults:?}");
    }
}

#[test]
fn rates_of_senders_have_bounds() {
    let limits = load("", &[]).expect("valid").limits;
    let rates = (limits.message_rate, limits.receive_bytes_rate, limits.fanout_bytes_rate);
    assert_eq!(rates, (10_000, 16 << 20, 512 << 20));
    for (setting, least) in
        [("message_rate", 1), ("receive_bytes_rate", 1_024), ("fanout_bytes_rate", 1_024)]
    {
        assert!(load(&format!("[limits]\n{setting} = {least}\n"), &[]).is_ok(), "{setting}");
        for value in [(least - 1).to_string(), "9_000_000_000_000".to_owned()] {
            let faults =
                load(&format!("[limits]\n{setting} = {value}\n"), &[]).expect_err("a fault");
            assert!(
                faults[0].starts_with(&format!("gatecast.toml:2: limits.{setting}: ")),
                "{faults:?}"
            );
            assert!(faults[0].contains(&format!("is not within {least} to ")), "{faults:?}");
        }
    }
}

#[test]
fn trusted_proxies_are_addresses_and_networks() {
    let config = load(
        "trusted_proxies = [\"10.0.0.5\", \"192.0.2.0/24\", \"2001:db8::/32\"]\nproxy_protocol = true",
        &[],
    )
    .expect("valid");
    let trusted: Vec<_> = config.proxies.trusted.iter().map(ToString::to_string).collect();
    assert_eq!(trusted, ["10.0.0.5/32", "192.0.2.0/24", "2001:db8::/32"]);
    assert!(config.proxies.protocol);
    let faults = load(
        "stage = \"a\"\ntrusted_proxies = [\"10.0.0.0/8\", \"10.0.0.5/8\", \"localhost\", \"10.0.0.0/33\"]\n",
        &[],
    )
    .expect_err("faults");
    assert_eq!(faults.len(), 3, "{faults:?}");
    for (fault, text) in faults.iter().zip(["10.0.0.5/8", "localhost", "10.0.0.0/33"]) {
        let expected =
            format!("gatecast.toml:2: trusted_proxies: {text:?} is not an address or a network");
        assert!(fault.starts_with(&expected), "{fault}");
    }
}

#[test]
fn what_an_address_may_have_is_bounded_where_addresses_are_known_or_a_bound_is_set() {
    let bounds = |file: &str| {
        let PerAddress { handshake_rate, connections, is_unset } =
            load(file, &[]).expect("valid").limits.per_address;
        (handshake_rate, connections, is_unset)
    };
    assert_eq!(bounds(""), (None, None, true));
    assert_eq!(bounds("trusted_proxies = [\"10.0.0.1\"]"), (Some(50), Some(1_000), false));
    assert_eq!(bounds("[limits]\nhandshake_rate_per_address = 7"), (Some(7), None, false));
    assert_eq!(bounds("[limits]\nconnections_per_address = 7"), (None, Some(7), false));
    assert_eq!(bounds("[limits]\nconnections_per_address = \"off\""), (None, None, false));
    let off = "trusted_proxies = [\"10.0.0.1\"]\n[limits]\nhandshake_rate_per_address = \"off\"";
    assert_eq!(bounds(off), (None, Some(1_000), false));
    for (value, expected) in [
        ("0", "\"0\" is not \"off\" or a whole number that is not 0"),
        ("-1", "\"-1\" is not \"off\" or a whole number"),
        ("\"none\"", "\"none\" is not \"off\" or a whole number"),
        ("20000000", "20000000 is not within \"off\" to "),
        ("[1]", "expected \"off\" or a whole number"),
    ] {
        for key in ["handshake_rate_per_address", "connections_per_address"] {
            let faults = load(&format!("[limits]\n{key} = {value}\n"), &[]).expect_err(value);
            assert!(
                faults[0].starts_with(&format!("gatecast.toml:2: limits.{key}: {expected}")),
                "{faults:?}"
            );
        }
    }
}

#[test]
fn what_only_a_trusted_proxy_may_say_needs_one() {
    let faults =
        load("proxy_protocol = true\n[auth]\nuser_header = \"X-User\"\n", &[]).expect_err("faults");
    let expected = [
        "gatecast.toml:1: proxy_protocol: nobody could connect; set trusted_proxies",
        "gatecast.toml:3: auth.user_header: anybody could name themselves; set trusted_proxies",
    ];
    assert_eq!(faults.len(), 2, "{faults:?}");
    for (fault, expected) in faults.iter().zip(expected) {
        assert!(fault.starts_with(expected), "{fault}");
    }
    let variables =
        [("GATECAST_TRUSTED_PROXIES", "127.0.0.1, ::1"), ("GATECAST_AUTH_USER_HEADER", "X-User")];
    assert_eq!(load("", &variables).expect("valid").proxies.trusted.len(), 2);
}

fn translate(otel: &[(&str, &str)], variables: &[(&str, &str)]) -> Config {
    let owned = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let file = Some((
        "gatecast.toml".to_owned(),
        "[tracing]\nratio = 0.5\nservice_name = \"a\"\n".to_owned(),
    ));
    let sources =
        Sources { file, overrides: owned(variables), otel: owned(otel), ..Sources::default() };
    Config::load(&sources).expect("valid")
}

#[test]
#[cfg_attr(not(feature = "otlp"), ignore = "needs the feature otlp")]
fn variables_of_opentelemetry_are_heard_below_our_own() {
    let standard = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/"),
        ("OTEL_SERVICE_NAME", "relay"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=no, deployment.environment.name=a%2Cb"),
    ];
    let config = translate(&standard, &[]);
    let tracing = config.tracing;
    assert_eq!(tracing.endpoint.as_deref(), Some("http://collector:4318/v1/traces"));
    assert_eq!((tracing.ratio, tracing.service_name.as_str()), (0.25, "relay"));
    assert_eq!(tracing.attributes, [("deployment.environment.name".to_owned(), "a,b".to_owned())]);
    assert_eq!(config.warnings, [""; 0]);
    let own = [("GATECAST_TRACING_RATIO", "1"), ("GATECAST_TRACING_ENDPOINT", "http://[::1]:1/x")];
    let tracing = translate(&standard, &own).tracing;
    assert_eq!((tracing.endpoint.as_deref(), tracing.ratio), (Some("http://[::1]:1/x"), 1.0));
    for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
        assert_eq!(translate(&[standard[0], off], &[]).tracing.endpoint, None, "{off:?}");
    }
    for (sampler, ratio) in [("always_on", 1.0), ("always_off", 0.0), ("traceidratio", 1.0)] {
        assert_eq!(
            translate(&[("OTEL_TRACES_SAMPLER", sampler)], &[]).tracing.ratio,
            ratio,
            "{sampler}"
        );
    }
}

#[test]
fn of_opentelemetry_what_is_not_understood_is_told_and_no_fault() {
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:password@collector:4318"),
        ("OTEL_TRACES_SAMPLER", "xray"),
        ("OTEL_RESOURCE_ATTRIBUTES", "nothing"),
    ] {
        let config = translate(&[(name, value)], &[]);
        assert_eq!(config.warnings, [format!("the variable {name} is not understood")], "{value}");
        assert_eq!((config.tracing.endpoint, config.tracing.ratio), (None, 0.5), "{value}");
    }
    let ratio = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "2")];
    assert_eq!(
        translate(&ratio, &[]).warnings,
        ["the variable OTEL_TRACES_SAMPLER is not understood"]
    );
}

#[test]
#[cfg_attr(not(feature = "otlp"), ignore = "needs the feature otlp")]
fn spans_go_to_a_collector_that_is_one() {
    for (file, expected) in [
        (
            "endpoint = \"https://a/v1/traces\"",
            "tracing.endpoint: not a URL of a collector without TLS",
        ),
        ("endpoint = \"http://a:b@c/\"", "tracing.endpoint: not a URL"),
        ("endpoint = \"collector:4318\"", "tracing.endpoint: not a URL"),
        ("ratio = 1.5", "tracing.ratio: 1.5 is not within 0.0 to 1.0"),
        ("ratio = \"NaN\"", "tracing.ratio: NaN is not within"),
        ("attributes = [\"=a\"]", "tracing.attributes: expected texts such as"),
    ] {
        let faults = load(&format!("[tracing]\n{file}\n"), &[]).expect_err(file);
        assert!(faults.len() == 1 && faults[0].starts_with("gatecast.toml:2: "), "{faults:?}");
        assert!(faults[0].contains(expected), "{faults:?}");
    }
}

#[test]
fn text_that_nests_without_end_is_a_fault() {
    let deep = 100_000;
    for text in [
        format!("routes = {}{}", "[".repeat(deep), "]".repeat(deep)),
        format!("routes = {}1{}", "{a=".repeat(deep), "}".repeat(deep)),
        format!("routes.{}a = 1", "a.".repeat(deep)),
        format!("[routes.{}a]\nintegration = \"mock\"", "a.".repeat(deep)),
        format!("[[routes.{}a]]\nintegration = \"mock\"", "a.".repeat(deep)),
        format!("[routes.a]\n{}a = 1", "integration.".repeat(deep)),
    ] {
        load(&text, &[]).expect_err("a fault");
    }
}

#[test]
fn a_stage_is_part_of_the_path() {
    let faults = load("stage = \"$default\"\n", &[]).expect_err("a fault");
    assert!(
        faults[0].starts_with("gatecast.toml:1: stage: ") && faults[0].contains("\"prod\""),
        "{faults:?}"
    );
    load("stage = \"Prod-2_x\"\n", &[]).expect("valid");
}

#[test]
fn what_streams_keep_has_bounds_and_a_budget_that_is_worth_one() {
    let redis = |line: &str| load(&format!("[redis]\nurl = \"redis://a\"\n{line}\n"), &[]);
    let settings = redis("").expect("valid").redis.expect("Redis");
    assert_eq!(
        (settings.stream_entries, settings.stream_bytes, settings.stream_budget),
        (1_000, 16 << 20, 0)
    );
    for line in ["stream_bytes = 1_024", "stream_budget = 0", "stream_budget = 16_777_216"] {
        assert!(redis(line).is_ok(), "{line}");
    }
    for line in [
        "stream_bytes = 100",
        "stream_bytes = 2_000_000_000",
        "stream_budget = 1_000_000",
        "stream_age = \"0s\"",
    ] {
        let faults = redis(line).expect_err("a fault");
        assert_eq!(faults.len(), 1, "{line}: {faults:?}");
        assert!(faults[0].contains(line.split(' ').next().expect("a name")), "{faults:?}");
    }
}
/// A configuration, and of its only fault the start (behind the file's name) and what it says.
const FAULTS: &[(&str, &str, &str)] = &[
    ("listen = \"localhost:8080\"", "1: listen", "is not an address with a port, such as"),
    (
        "listen = \"127.0.0.1:1\"\nadmin_listen = \"127.0.0.1:1\"",
        "2: admin_listen",
        "need a port each",
    ),
    ("admin_listen = \"127.0.0.1:8080\"", "1: admin_listen", "127.0.0.1:8080 is taken by listen"),
    (
        "listen = \"[::ffff:127.0.0.1]:9090\"\nmanagement.auth = \"none\"",
        "1: listen",
        "need a port each",
    ),
    ("listen = \"0.0.0.0:9090\"\nmanagement.auth = \"none\"", "1: listen", "need a port each"),
    ("stage = \"$default\"", "1: stage", "write a name such as \"prod\""),
    ("node_name = \"\"", "1: node_name", "1 to 128 bytes"),
    ("node_name = \"a\\u0007b\"", "1: node_name", "no control characters"),
    ("shards = 0x500", "1: shards", "1280 is not within 0 to 1024"),
    ("shards = -1", "1: shards", "\"-1\" is not a whole number"),
    (
        "[limits]\nping_interval = \"0s\"",
        "2: limits.ping_interval",
        "0ns is not within 10ms to 1h, or \"off\"",
    ),
    (
        "[limits]\nping_interval = \"2h\"",
        "2: limits.ping_interval",
        "\"off\" or a duration of at most 1h",
    ),
    ("[limits]\nping_interval = 25", "2: limits.ping_interval", "\"off\" or a duration"),
    (
        "[limits]\nidle_timeout = \"0s\"",
        "2: limits.idle_timeout",
        "0ns is not within 10ms to 86400s",
    ),
    (
        "[limits]\nmessage_bytes = 2097152",
        "2: limits.message_bytes",
        "make limits.outbox_bytes several times as",
    ),
    ("[limits]\noutbox_bytes = 2048", "2: limits.outbox_bytes", "no client could be sent it"),
    ("[limits]\nframe_bytes = 262144", "2: limits.frame_bytes", "longer than limits.message_bytes"),
    (
        "[limits]\nmax_connections = 1e3",
        "2: limits.max_connections",
        "\"1e3\" is not a whole number",
    ),
    (
        "[limits]\nkeep_alive_timeout = \"999ms\"",
        "2: limits.keep_alive_timeout",
        "999ms is not within 1s to 3600s",
    ),
    (
        "[limits]\nkeep_alive_timeout = \"61m\"",
        "2: limits.keep_alive_timeout",
        "is not within 1s to 3600s",
    ),
    ("[limits]\nkeep_alive_timeout = \"off\"", "2: limits.keep_alive_timeout", "is not a duration"),
    ("[drain]\nwindow = \"2h\"", "2: drain.window", "is not within 0ns to 3600s"),
    (
        "[routes.a]\nintegration = \"send_group\"\ngroup = \"ticks\"\ndata = \"x\"\n\
         idempotency_key = \"$request.body.id\"\n[[groups]]\npattern = \"t*\"\nreplay = \"off\"",
        "5: routes.a.idempotency_key",
        "write replay = \"on\" in their rule",
    ),
    (
        "[routes.a]\nintegration = \"send_group\"\ngroup = \"${request.body.g}-ticks\"\ndata = \"x\"\n\
         idempotency_key = \"$request.body.id\"\n[[groups]]\npattern = \"moon-*-slow\"\n\
         [[groups]]\npattern = \"*-ticks\"\nreplay = \"off\"",
        "5: routes.a.idempotency_key",
        "is refused; remove it",
    ),
    ("[auth]\nallowed_origins = []", "2: auth.allowed_origins", "\"*\" for all, or leave it out"),
    (
        "[auth]\nallowed_origins = [\"a.example\"]",
        "2: auth.allowed_origins",
        "write \"https://a.example\"",
    ),
    ("[auth]\nallowed_origins = \"*\"", "2: auth.allowed_origins", "expected a list of texts"),
    (
        "trusted_proxies = [\"::/0\"]\n[auth]\nuser_header = \"X-User\"",
        "3: auth.user_header",
        "has ::/0",
    ),
    (
        "trusted_proxies = [\"0.0.0.0/1\", \"128.0.0.0/1\"]\n[auth]\nuser_header = \"X-User\"",
        "3: auth.user_header",
        "anybody could name themselves, since trusted_proxies has 0.0.0.0/0",
    ),
    (
        "trusted_proxies = [\"::ffff:0:0/96\"]\n[auth]\nuser_header = \"X-User\"",
        "3: auth.user_header",
        "has 0.0.0.0/0",
    ),
    (
        "trusted_proxies = [\"10.0.0.1\"]\n[auth]\nuser_header = \"Sec-WebSocket-Key\"",
        "3: auth.user_header",
        "write a header of your own, such as \"X-User\"",
    ),
    ("[auth]\nuser_header = \"X User\"", "2: auth.user_header", "is not the name of a header"),
    (
        "[[management.keys]]\nid = \"A\"\nsecret = \"x\"",
        "3: management.keys.secret",
        "this is not a secret of 8",
    ),
    (
        "[[management.keys]]\nid = \"A/B\"\nsecret = \"long enough\"",
        "2: management.keys.id",
        "without / and ,",
    ),
    (
        "[[management.keys]]\nid = \"same-same\"\nsecret = \"same-same\"",
        "2: management.keys.id",
        "no secret",
    ),
    (
        "[[management.keys]]\nid = \"A\"\nsecret = \"new line \\n\"",
        "3: management.keys.secret",
        "blanks at its ends",
    ),
    ("\n[[management.keys]]\n", "2: management.keys.id", "a key needs both id and secret"),
    ("access_key_id = \"A\"\nsecret_access_key = \"s\"", "2: secret_access_key", "openssl rand"),
    (
        "[management]\nauth = \"sigv4\"",
        "2: management.auth",
        "set access_key_id and secret_access_key",
    ),
    ("[redis]\nurl = \"redis://tom@a\"", "2: redis.url", "redis://[user:password@]host[:port]"),
    (
        "[redis]\nurl = \"redis://a\"\nprefix = \"{a}\"",
        "3: redis.prefix",
        "letters, digits and the signs - _ . : /",
    ),
    ("[redis]\nurl = \"redis://a\"\nprefix = \"\"", "3: redis.prefix", "1 to 64"),
    (
        "[redis]\nurl = \"redis://a\"\nlease = \"2s\"",
        "3: redis.lease",
        "ends before 3 heartbeats of 1s have come",
    ),
    (
        "[redis]\nurl = \"redis://a\"\nheartbeat = \"5s\"",
        "3: redis.heartbeat",
        "a lease of 10s ends before",
    ),
    (
        "[redis]\nurl = \"redis://a\"\nsentinel_password = \"p\"",
        "3: redis.sentinel_password",
        "names no Sentinels",
    ),
    (
        "[redis]\nurl = \"redis+sentinel://a/m\"\nsentinel_user = \"tom\"",
        "3: redis.sentinel_user",
        "set redis.sentinel_password",
    ),
    (
        "[redis]\nurl = \"rediss://a\"\ntls_cert_file = \"x\"",
        "3: redis.tls_cert_file",
        "set both or none",
    ),
    ("[callback]\ncert_file = \"x\"", "2: callback.cert_file", "set both or none"),
    (
        "[callback]\nkey_file = \"x\"",
        "2: callback.key_file",
        "callback.cert_file and callback.key_file go together",
    ),
    (
        "[callback]\ncert_file = \"/no\"\nkey_file = \"/no\"",
        "2: callback.cert_file",
        "/no: No such file",
    ),
    (
        "[callback]\ncert_file = \"Cargo.toml\"\nkey_file = \"/no\"",
        "2: callback.cert_file",
        "no certificate in PEM",
    ),
    ("[callback]\ndomain_name = \"https://a/beta\"", "2: callback.domain_name", "without a scheme"),
    ("[callback]\nregion = \"US East\"", "2: callback.region", "eu-central-1"),
    ("[callback]\nlisten = \"127.0.0.1:8080\"", "2: callback.listen", "a port of their own"),
    ("[callback]\nlisten = \"8443\"", "2: callback.listen", "an address with a port"),
    (
        "[redis]\nurl = \"rediss://a\"\ntls_ca_file = \"/nowhere\"",
        "3: redis.tls_ca_file",
        "/nowhere: No such file",
    ),
    (
        "[redis]\nurl = \"rediss://a\"\ntls_ca_file = \"/\"",
        "3: redis.tls_ca_file",
        "it is a directory",
    ),
    (
        "[redis]\nurl = \"rediss://a\"\ntls_ca_file = \"/dev/zero\"",
        "3: redis.tls_ca_file",
        "a pipe or a device",
    ),
    (
        "[redis]\nurl = \"rediss://a\"\ntls_ca_file = \"Cargo.toml\"",
        "3: redis.tls_ca_file",
        "no certificate in PEM",
    ),
    (
        "[access_log]\nformat = \"$context.requestID\"",
        "2: access_log.format",
        "$context. and one of apiId",
    ),
    ("[access_log]\nfile = \"a\"", "2: access_log.file", "set access_log.format"),
    ("[tracing]\nservice_name = \"\"", "2: tracing.service_name", "1 to 128 bytes"),
    ("[tracing]\nattributes = [\"a\"]", "2: tracing.attributes", "expected texts such as"),
    (
        "[[groups]]\npattern = \"a-*\"\n[[groups]]\npattern = \"a-b*\"",
        "4: groups.pattern",
        "the rule above for \"a-*\" matches all of this first",
    ),
    (
        "[routes.\"$binary\"]\nintegration = \"mock\"",
        "1: routes.$binary",
        "set limits.allow_binary = true",
    ),
    (
        "[routes.\"$connect\"]\nintegration = \"broadcast\"\ndata = \"$request.body.a\"",
        "3: routes.$connect.data",
        "there is no message here",
    ),
    (
        "[routes.\"$connect\"]\nintegration = \"broadcast\"\ndata = \"hello\"\nstatus = 403",
        "2: routes.$connect.integration",
        "status refuses every client",
    ),
    (
        "[routes.\"$connect\"]\nintegration = \"mock\"\nstatus = 700",
        "3: routes.$connect.status",
        "within 200 to 599",
    ),
    (
        "[routes.\"$text\"]\nintegration = \"broadcast\"\ndata = \"${request.body.a}\"",
        "3: routes.$text.data",
        "a message here is not JSON",
    ),
    (
        "[routes.a]\nintegration = \"join\"\ngroup = \"\"",
        "3: routes.a.group",
        "\"\" is not a group's name",
    ),
    (
        "limits.idempotency_age = \"5s\"\n[redis]\nurl = \"redis://a\"\non_outage = \"buffer\"\nbuffer_age = \"6s\"",
        "5: redis.buffer_age",
        "would come twice",
    ),
    (
        "[routes.a]\nintegration = \"broadcast\"\ndata = \"x\"\nidempotency_key = \"k\"",
        "4: routes.a.idempotency_key",
        "such as \"$request.body.id\"",
    ),
    ("[functions.a]\nruntime = \"command\"", "1: functions.a.code", "the folder of the code"),
    (
        "[functions.a]\ncode = \"src\"",
        "1: functions.a.runtime",
        "\"node\", \"python\" or \"command\"",
    ),
    (
        "[functions.a]\ncode = \"src\"\nruntime = \"ruby\"",
        "3: functions.a.runtime",
        "is not \"node\"",
    ),
    (
        "[functions.a]\ncode = \"src\"\nruntime = \"node\"",
        "1: functions.a.handler",
        "index.handler",
    ),
    (
        "[functions.a]\ncode = \"no\"\nruntime = \"command\"",
        "2: functions.a.code",
        "no is no folder",
    ),
    (
        "[functions.\"a b\"]\ncode = \"src\"\nruntime = \"command\"",
        "1: functions.a b",
        "letters, digits",
    ),
    (
        "[functions.a]\ncode = \"src\"\nruntime = \"command\"\nmin_processes = 5",
        "1: functions.a.max_processes",
        "less than min_processes, 5",
    ),
    (
        "[functions.a]\ncode = \"src\"\nruntime = \"command\"\ntimeout = \"16m\"",
        "4: functions.a.timeout",
        "within 50ms to 900s",
    ),
    (
        "[functions.a]\ncode = \"src\"\nruntime = \"command\"\nenvironment = { LAMBDA_TASK_ROOT = \"/\" }",
        "4: functions.a.environment",
        "choose another name",
    ),
    (
        "[functions.a]\ncode = \"src\"\nruntime = \"command\"\nenvironment = { \"1A\" = \"/\" }",
        "4: functions.a.environment",
        "no digit first",
    ),
    (
        "[functions.a]\ncode = \"src\"\nruntime = \"command\"\nhosts = { \"Db:80\" = \"127.0.0.1:1\" }",
        "4: functions.a.hosts",
        "in small letters",
    ),
    (
        "[functions.a]\ncode = \"src\"\nruntime = \"command\"\nhosts = { db = \"127.0.0.1\" }",
        "4: functions.a.hosts",
        "an address with a port",
    ),
    (
        "[functions.a]\ncode = \"src\"\nruntime = \"command\"\nmemory = 128",
        "4: functions.a.memory",
        "unknown key",
    ),
];

#[test]
fn functions_are_read_with_their_folder_beside_the_file() {
    let text = "[functions.send]\nruntime = \"python\"\nhandler = \"app.handler\"\ncode = \"src\"\ntimeout = \"3s\"\n\
                command = [\".venv/bin/python\"]\nhosts = { \"db.example.com\" = \"127.0.0.1:8000\" }\n\
                [functions.send.environment]\nTABLE = \"a,b\"\nCOUNT = 3\n";
    let config = load(text, &[("GATECAST_FUNCTIONS_SEND_MAX_PROCESSES", "9")]).expect("valid");
    let function = config.functions.first().expect("it");
    assert_eq!(
        (&*function.name, function.runtime, function.timeout),
        ("send", Runtime::Python, 3 * SECOND)
    );
    assert_eq!((function.min_processes, function.max_processes, function.concurrency), (0, 9, 1));
    assert_eq!(
        (function.code.to_str(), function.handler.as_deref()),
        (Some("src"), Some("app.handler"))
    );
    let environment: Vec<_> =
        function.environment.iter().map(|(name, value)| (&**name, value.expose())).collect();
    assert_eq!(environment, [("COUNT", "3"), ("TABLE", "a,b")]);
    assert!(
        function.hosts.contains_key("db.example.com") && !format!("{config:?}").contains("a,b")
    );
    let variable = ("GATECAST_FUNCTIONS_SEND_ENVIRONMENT", "{\"TABLE\":\"c\"}");
    let config = load(text, &[variable]).expect("valid");
    assert_eq!(config.functions[0].environment["TABLE"], Secret::new("c"));
    let beside = Sources {
        file: Some(("deploy/gatecast.toml".to_owned(), text.replace("src", "../src"))),
        ..Sources::default()
    };
    assert_eq!(
        Config::load(&beside).expect("valid").functions[0].code.to_str(),
        Some("deploy/../src")
    );
}

#[test]
fn what_cannot_work_is_a_fault_with_its_line_and_what_to_write() {
    for (text, start, part) in FAULTS {
        let faults = load(text, &[]).expect_err(text);
        let is_it = faults.len() == 1
            && faults[0].starts_with(&format!("gatecast.toml:{start}: "))
            && faults[0].contains(part);
        assert!(is_it, "{text}\n{faults:#?}");
    }
}

#[test]
fn what_is_unusual_and_works_is_valid() {
    for text in [
        "[limits]\nping_interval = \"10ms\"\npong_timeout = \"10s\"",
        "[limits]\nmessage_bytes = 1_024",
        "[limits]\nframe_bytes = 0x1000",
        "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"",
        "listen = \"127.0.0.2:9090\"",
        "[auth]\nallowed_origins = [\"*\", \"null\", \"https://*.a.example\", \"HTTP://LOCALHOST:*/\"]",
        "trusted_proxies = [\"10.0.0.0/8\", \"fc00::/7\"]\n[auth]\nuser_header = \"X-Forwarded-User\"",
        "trusted_proxies = [\"0.0.0.0/0\"]",
        "[redis]\nurl = \"redis://a\"\nlease = \"500ms\"\nheartbeat = \"50ms\"\nprefix = \"a:b.c/d-e_f\"",
        "[[groups]]\npattern = \"a-b*\"\n[[groups]]\npattern = \"a-*\"\n[[groups]]\npattern = \"*\"",
        "limits.allow_binary = true\n[routes.\"$binary\"]\nintegration = \"broadcast\"\ndata = \"$request.body\"",
        "route_selection_expression = \"${request.body.a}/${request.body.b}\"\n[routes.\"a/b\"]\nintegration = \"mock\"",
        // Some of the groups that it may name are kept.
        "[routes.a]\nintegration = \"send_group\"\ngroup = \"$request.body.g\"\ndata = \"x\"\n\
         idempotency_key = \"$request.body.id\"\n[[groups]]\npattern = \"ticks-*\"\nreplay = \"off\"",
        "[routes.a]\nintegration = \"send_group\"\ngroup = \"ticks-${request.body.g}\"\ndata = \"x\"\n\
         idempotency_key = \"$request.body.id\"\n[[groups]]\npattern = \"*-slow\"\n\
         [[groups]]\npattern = \"*\"\nreplay = \"off\"",
    ] {
        assert!(load(text, &[]).is_ok(), "{text}\n{:#?}", load(text, &[]).err());
    }
    let hexadecimal =
        load("[limits]\nframe_bytes = 0x1000\nmax_connections = 1_000", &[]).expect("valid");
    assert_eq!(
        (hexadecimal.limits.frame_bytes, hexadecimal.limits.max_connections),
        (4_096, 1_000)
    );
}

#[test]
fn what_has_no_effect_is_told() {
    for (text, part) in [
        ("[redis]\nprefix = \"a\"", "redis.prefix has no effect without redis.url"),
        ("[redis]\nurl = \"redis://a\"\nbuffer_age = \"1s\"", "redis.buffer_age has no effect"),
        (
            "[limits]\nping_interval = \"off\"\npong_timeout = \"1s\"",
            "limits.pong_timeout has no effect",
        ),
        ("trusted_proxies = [\"0.0.0.0/0\"]", "trusted_proxies has 0.0.0.0/0"),
        ("[drain]\ngrace = \"1s\"", "drain.grace: clients that are closed last have 1s to answer"),
        ("[limits]\nclose_timeout = \"11s\"", "write drain.grace = \"11s\" or more"),
        (
            "drain.grace = \"4999ms\"\nlimits.close_timeout = \"5s\"",
            "write drain.grace = \"5s\" or more",
        ),
        (
            "route_selection_expression = \"ping\"\n[routes.pong]\nintegration = \"mock\"",
            "routes.pong is for no message",
        ),
        (
            "[routes.\"$disconnect\"]\nintegration = \"broadcast\"\ndata = \"x\"\nidempotency_key = \
             \"${context.connectionId}\"",
            "idempotency_key has no effect",
        ),
        (
            "access_key_id = \"A\"\nsecret_access_key = \"long enough\"\nmanagement.auth = \"none\"",
            "keys of the management API are not asked for",
        ),
    ] {
        let warnings = load(text, &[]).expect(text).warnings;
        assert!(warnings.len() == 1 && warnings[0].contains(part), "{text}\n{warnings:#?}");
    }
    let own = |variables| load("", variables).expect("valid").warnings;
    assert_eq!(
        own(&[("GATECAST_ELEPHANT", "1")]),
        ["the variable GATECAST_ELEPHANT is not a setting"]
    );
}

#[test]
fn who_is_served_depends_on_what_was_said() {
    let origins = |text| load(text, &[]).expect(text).auth.allowed_origins;
    assert!(matches!(origins(""), Origins::Local));
    assert!(matches!(origins("listen = \"[::1]:8080\""), Origins::Local));
    assert!(matches!(origins("trusted_proxies = [\"127.0.0.1\"]"), Origins::Any));
    assert!(matches!(origins("listen = \"0.0.0.0:1\"\nmanagement.auth = \"none\""), Origins::Any));
    assert!(matches!(origins("auth.allowed_origins = [\"*\"]"), Origins::Any));
    assert!(matches!(
        origins("auth.allowed_origins = [\"http://localhost:*\"]"),
        Origins::Listed(_)
    ));
    let auth = |text| load(text, &[]).expect(text).management.auth;
    assert_eq!(auth("trusted_proxies = [\"127.0.0.1\"]"), ManagementAuth::Local);
    assert_eq!(auth("management.auth = \"none\""), ManagementAuth::None);
    assert_eq!(
        auth("access_key_id = \"A\"\nsecret_access_key = \"long enough\""),
        ManagementAuth::SigV4
    );
}

#[test]
fn a_program_without_an_exporter_takes_no_endpoint() {
    let text = "[tracing]\nendpoint = \"http://127.0.0.1:4318/v1/traces\"\n";
    let faults = load(text, &[]).err().unwrap_or_default();
    assert_eq!(faults.is_empty(), cfg!(feature = "otlp"), "{faults:#?}");
    assert!(
        faults.iter().all(|fault| fault.contains("built without the feature otlp")),
        "{faults:#?}"
    );
}

#[test]
fn many_faults_take_no_long_time() {
    let text: String = (0..30_000).map(|number| format!("unknown{number} = 1\n")).collect();
    let faults = load(&text, &[]).expect_err("faults");
    assert_eq!(faults.len(), 30_000);
    let last = "gatecast.toml:30000: unknown29999: ";
    assert!(faults.iter().any(|fault| fault.starts_with(last)));
}

#[test]
fn every_row_is_read_and_has_a_variable_of_its_own() {
    let tables: BTreeSet<_> =
        ROWS.iter().map(|row| row.table()).filter(|table| !table.contains('*')).collect();
    for table in &tables {
        let header = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
        let faults = load(&format!("{header}\u{22}\u{22} = 1\n"), &[]).expect_err("a fault");
        let known = faults[0].split_once("known are: ").expect("what is known").1;
        let known: BTreeSet<_> = known.split(", ").collect();
        let rows = ROWS.iter().filter(|row| row.table() == *table).map(|row| row.name());
        let expected =
            rows.chain(tables.iter().copied().filter(|name| table.is_empty() && !name.is_empty()));
        assert_eq!(known, expected.collect(), "{table}");
    }
    let keys: Vec<_> = ROWS.iter().map(|row| row.key()).filter(|key| !key.contains('*')).collect();
    let variables: BTreeSet<_> = keys.iter().map(|key| variables::variable(key)).collect();
    assert_eq!(variables.len(), keys.len());
}

#[test]
fn defaults_lie_within_their_bounds_and_are_what_is_read_when_written() {
    for row in ROWS.iter().filter(|row| !row.table().contains('*')) {
        let schema = row.schema();
        let Some(default) = schema.get("default") else { continue };
        let (key, written) = (row.key(), default.to_string());
        let text = format!("{key} = {written}\n");
        // Some have no effect without others, which is said.
        let of = |config: Config| format!("{:?}", Config { warnings: Vec::new(), ..config });
        let (written, unwritten) =
            (load(&text, &[]).expect(&text), load("", &[]).expect("defaults"));
        assert_eq!(of(written), of(unwritten), "{text}");
    }
}

/// Settings without which others would change nothing.
const GIVEN: &[(&str, &str)] = &[
    ("access_key_id", "'A'"),
    ("secret_access_key", "'long enough'"),
    ("redis.url", "'redis://a'"),
    ("routes.a", "{ integration = 'mock' }"),
];

/// Of each setting another value.
const OTHERS: &[(&str, &str)] = &[
    ("listen", "'127.0.0.1:1'"),
    ("admin_listen", "'127.0.0.1:1'"),
    ("stage", "'prod'"),
    ("node_name", "'another'"),
    ("trusted_proxies", "['10.0.0.1']"),
    ("proxy_protocol", "true"),
    ("shards", "7"),
    ("log_format", "'json'"),
    ("watch", "true"),
    ("route_selection_expression", "'$request.body.type'"),
    ("routes", "{ a = { integration = 'close' } }"),
    ("targets", "{ a = { url = 'http://a' } }"),
    ("lambdas", "{ a = { function = 'a', endpoint = 'http://a' } }"),
    ("streams", "{ a = {} }"),
    ("functions", "{ a = { runtime = 'command', code = '.' } }"),
    ("groups", "[{ pattern = 'a', replay = 'off' }]"),
    ("access_key_id", "'B'"),
    ("secret_access_key", "'quite long enough'"),
    ("management.keys", "[{ id = 'C', secret = 'long enough' }]"),
    ("management.auth", "'none'"),
    ("management.clock_skew", "'1m'"),
    ("redis.url", "'redis://:another@a'"),
    ("redis.sentinel_user", "'a'"),
    ("redis.sentinel_password", "'a'"),
    ("redis.tls_ca_file", "'a'"),
    ("redis.tls_cert_file", "'a'"),
    ("redis.tls_key_file", "'a'"),
    ("redis.prefix", "'a'"),
    ("redis.lease", "'20s'"),
    ("redis.heartbeat", "'2s'"),
    ("redis.stream_entries", "7"),
    ("redis.stream_bytes", "7_000"),
    ("redis.stream_budget", "20_000_000"),
    ("redis.stream_age", "'7s'"),
    ("redis.on_outage", "'local'"),
    ("redis.buffer_bytes", "7_000"),
    ("redis.buffer_age", "'7s'"),
    ("callback.listen", "'127.0.0.1:1'"),
    ("callback.domain_name", "'a.example'"),
    ("callback.cert_file", "'a'"),
    ("callback.key_file", "'a'"),
    ("callback.region", "'eu-west-1'"),
    ("access_log.format", "'$context.requestId'"),
    ("access_log.file", "'a'"),
    ("tracing.endpoint", "'http://a/v1/traces'"),
    ("tracing.ratio", "0.5"),
    ("tracing.service_name", "'a'"),
    ("tracing.attributes", "['a=b']"),
    ("auth.allowed_origins", "['https://a.example']"),
    ("auth.user_header", "'X-User'"),
    ("auth.subprotocols", "['chat']"),
    ("limits.max_connections", "7"),
    ("limits.max_http_connections", "7"),
    ("limits.handshake_rate", "7"),
    ("limits.handshake_rate_per_address", "7"),
    ("limits.connections_per_address", "7"),
    ("limits.handshake_timeout", "'7s'"),
    ("limits.keep_alive_timeout", "'7s'"),
    ("limits.frame_bytes", "7_000"),
    ("limits.message_bytes", "7_000"),
    ("limits.allow_binary", "true"),
    ("limits.message_rate", "7"),
    ("limits.receive_bytes_rate", "7_000"),
    ("limits.fanout_bytes_rate", "7_000"),
    ("limits.new_channels_rate", "7"),
    ("limits.new_channels_rate_per_address", "7"),
    ("limits.idle_timeout", "'7s'"),
    ("limits.max_lifetime", "'7s'"),
    ("limits.ping_interval", "'off'"),
    ("limits.pong_timeout", "'7s'"),
    ("limits.outbox_bytes", "7_000_000"),
    ("limits.outbox_age", "'7s'"),
    ("limits.close_timeout", "'7s'"),
    ("limits.calls_per_connection", "7"),
    ("limits.groups_per_connection", "7"),
    ("limits.idempotency_age", "'7m'"),
    ("limits.memory_budget", "70_000_000"),
    ("drain.notice", "'7s'"),
    ("drain.window", "'7s'"),
    ("drain.min_rate", "7"),
    ("drain.grace", "'7s'"),
];

/// Reads settings, be they faulty or not: a file that does not exist is another one all the same.
fn reading(other: Option<(&str, &str)>, held: Option<&Values>) -> (Config, Findings) {
    let is_other = |key: &str| other.is_some_and(|(other, _)| key.starts_with(other));
    let lines = GIVEN.iter().filter(|(key, _)| !is_other(key)).chain(other.as_ref());
    let text: String = lines.map(|(key, value)| format!("{key} = {value}\n")).collect();
    let overrides = BTreeMap::new();
    let mut reader = Reader::open("gatecast.toml", &text, &overrides, held);
    let config = sections::read(&mut reader, &AwsVariables::default());
    (config, reader.end())
}

#[test]
fn a_reload_changes_what_the_table_says_and_tells_of_the_rest() {
    let keys: BTreeSet<_> =
        ROWS.iter().map(|row| row.key()).filter(|key| !key.contains('*')).collect();
    assert_eq!(keys, OTHERS.iter().map(|(key, _)| (*key).to_owned()).collect());
    let (old, Findings { values, .. }) = reading(None, None);
    let hot = |config: &Config| {
        let Config { routes, limits, drain, management, auth, proxies, .. } = config.clone();
        (routes, limits, drain, management, auth, proxies.trusted)
    };
    assert_eq!(reading(None, Some(&values)).1.changes, [], "nothing is new");
    for (key, other) in OTHERS {
        let row = ROWS.iter().find(|row| row.key() == *key).expect("a row");
        let (new, Findings { changes, .. }) = reading(Some((key, other)), Some(&values));
        assert_eq!(changes, [Change { key: (*key).to_owned(), reload: row.reload() }]);
        let is_applied = row.reload() != Reload::Restart;
        assert_eq!(hot(&new) != hot(&old), is_applied, "{key}");
        assert!(is_applied || format!("{new:?}") == format!("{old:?}"), "{key}");
    }
}

fn reload(old: &str, new: &str) -> Result<Reloaded, Vec<String>> {
    let sources = |text: &str| Sources {
        file: Some(("gatecast.toml".to_owned(), text.to_owned())),
        ..Sources::default()
    };
    let config = Config::load(&sources(old)).expect("valid");
    config.reload(&sources(new)).map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

#[test]
fn a_fault_is_one_line_that_is_not_too_long() {
    let long = "x".repeat(1 << 20);
    for text in
        [format!("stage = '{long}'"), format!("'a\\nb{long}' = 1"), "\"a\\nb\" = 1".to_owned()]
    {
        let faults = reload("", &text).expect_err("a fault");
        assert!(
            faults.iter().all(|fault| fault.len() < 2_000 && !fault.contains('\n')),
            "{faults:?}"
        );
    }
}

#[test]
fn what_is_refused_at_the_start_is_refused_whole() {
    let faults = reload("", "limits.idle_timeout = '1m'\nstage = 'a b'\nlisten = 'nowhere'")
        .expect_err("faults");
    assert!(faults.len() == 2 && faults[0].starts_with("gatecast.toml:2: stage: "), "{faults:?}");
}

#[test]
fn what_does_not_go_with_what_stays_is_refused_too() {
    let faults =
        reload("", "[limits]\nmessage_bytes = 1_024\noutbox_bytes = 4_096").expect_err("a fault");
    let start = "gatecast.toml:2: limits.message_bytes: beside the settings that need a restart, as they are now: ";
    assert!(faults.len() == 1 && faults[0].starts_with(start), "{faults:?}");
}

#[test]
fn who_may_connect_follows_from_where_the_node_does_listen() {
    let open = "listen = '0.0.0.0:8080'\nmanagement.auth = 'none'";
    let Reloaded { config, applied, needs_restart } = reload("", open).expect("valid");
    assert!(matches!(config.auth.allowed_origins, Origins::Local), "it listens on loopback still");
    assert_eq!(
        (applied, needs_restart),
        (vec!["management.auth".to_owned()], vec!["listen".to_owned()])
    );
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    let Reloaded { config, needs_restart, .. } =
        reload("groups = [{ pattern = 'a', replay = 'off' }]", "").expect("valid");
    assert_eq!(needs_restart, ["groups"]);
    assert!(!config.groups.keeps("a"));
}

#[test]
fn another_way_to_write_the_same_is_no_change() {
    let new = "limits.idle_timeout = '600s'\nlimits.frame_bytes = 0x8000\nshards = 0\nredis.prefix = 'gatecast'";
    let Reloaded { applied, needs_restart, .. } = reload("", new).expect("valid");
    assert_eq!((applied, needs_restart), (Vec::new(), Vec::new()));
}
