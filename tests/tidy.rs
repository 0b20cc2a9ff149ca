//! What the code promises of itself: the direction of its dependencies, its size, and tables in the README that agree with it.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::string_slice,
    reason = "tests stop at what they did not expect"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders of `src` in the order of their layers: each uses those before it, and none behind it.
const LAYERS: &[&str] = &[
    "protocol",
    "model",
    "ops",
    "routing",
    "config",
    "limits",
    "shard",
    "cluster",
    "edge",
    "drain",
    "node",
    "kubernetes",
    "cli",
];

/// Longest file, its tests not counted.
const LINES_MAX: usize = 400;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All Rust files below a folder, relative to it.
fn files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty());
    found.sort();
    found
}

fn module_of(path: &Path) -> String {
    let relative = path.strip_prefix(root().join("src")).expect("below src").with_extension("");
    relative.iter().map(|part| part.to_str().expect("UTF-8")).collect::<Vec<_>>().join("::")
}

/// The layer of a module: its folder's.
fn layer(module: &str) -> Option<usize> {
    let folder = module.split("::").next().expect("a first part");
    LAYERS.iter().position(|name| *name == folder)
}

fn is_tests(module: &str) -> bool {
    module.ends_with("::tests") || module.contains("::conformance") || module.ends_with("::bench")
}

#[test]
fn dependencies_point_downwards() {
    let mut faults = Vec::new();
    for path in files("src") {
        let module = module_of(&path);
        if is_tests(&module) || ["lib", "main", "fuzz"].contains(&module.as_str()) {
            continue;
        }
        let own = layer(&module).unwrap_or_else(|| panic!("{module} is in no layer: a folder of LAYERS"));
        let text = fs::read_to_string(&path).expect("readable");
        let code = text.split("#[cfg(test)]\nmod tests {").next().expect("a first part");
        for used in code.split("use crate::").skip(1) {
            let used = used.split([';', '{', ' ']).next().expect("a path").trim_end_matches("::");
            let used_layer =
                layer(used).unwrap_or_else(|| panic!("{module} uses {used}, which is in no layer"));
            if used_layer > own {
                faults.push(format!("{module} uses {used}, which is a layer above it"));
            }
        }
    }
    assert_eq!(faults, [""; 0]);
}

#[test]
fn files_are_short_and_say_what_they_own() {
    let mut faults = Vec::new();
    for path in files("src").into_iter().chain(files("loadtest/src")) {
        let text = fs::read_to_string(&path).expect("readable");
        let name = path.strip_prefix(root()).expect("ours").display();
        if !text.starts_with("//! ") {
            faults.push(format!("{name} does not begin with //!"));
        }
        let code = text.split("#[cfg(test)]\nmod tests {").next().expect("a first part");
        let is_tests = path.file_stem().is_some_and(|stem| stem == "tests" || stem == "conformance");
        if code.lines().count() > LINES_MAX && !is_tests {
            faults.push(format!("{name} has more than {LINES_MAX} lines"));
        }
    }
    assert_eq!(faults, [""; 0]);
}

#[test]
fn only_one_module_knows_each_outside_thing() {
    for (word, module) in [("warp::", "edge::http"), ("std::env::", "cli"), ("\"gatecast_", "ops::metrics")] {
        for path in files("src") {
            let user = module_of(&path);
            let text = fs::read_to_string(&path).expect("readable");
            let may = user == module
                || user.starts_with(&format!("{module}::"))
                || (word == "warp::" && user == "node");
            assert!(may || !text.contains(word), "{user} contains {word}, which is {module}'s");
        }
    }
}

/// The first column of the README's table under a heading, without its code marks.
fn table(readme: &str, heading: &str) -> BTreeSet<String> {
    let (_, section) =
        readme.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading {heading}"));
    let rows =
        section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = rows.skip(2).map(|row| row.trim_start_matches('|').split('|').next().expect("a cell").trim());
    let names: BTreeSet<String> = cells.map(|cell| cell.trim_matches('`').to_owned()).collect();
    assert!(!names.is_empty(), "no table under {heading}");
    names
}

fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

#[test]
fn readme_lists_the_metrics_there_are() {
    use gatecast::ops::metrics;
    assert_eq!(
        table(&read("README.md"), "### Metrics"),
        set([metrics::NAMES, metrics::http::NAMES, metrics::spans::NAMES, metrics::deletion_cost::NAMES]
            .concat())
    );
}

#[test]
fn readme_lists_the_calls_there_are() {
    let source = read("src/edge/http/manage/path.rs");
    let table_of_paths = source.split("const ENDPOINTS").nth(1).expect("the table");
    let table_of_paths = table_of_paths.split("];").next().expect("its end");
    let rows = table_of_paths.lines().filter(|line| line.trim_start().starts_with("(\""));
    let calls = rows.map(|row| {
        let mut texts = row.split('"').skip(1).step_by(2);
        let (method, path) = (texts.next().expect("a method"), texts.next().expect("a path"));
        format!("{method} {}", path.replace("{connectionId}", "{id}"))
    });
    assert_eq!(table(&read("README.md"), "## Management API"), calls.collect());
}

#[test]
fn readme_lists_the_integrations_there_are() {
    let source = read("src/config/routes.rs");
    let list = source
        .split("const INTEGRATIONS: &str = \"")
        .nth(1)
        .expect("the list")
        .split('"')
        .next()
        .expect("its end");
    assert_eq!(
        table(&read("README.md"), "### Integrations"),
        set(list.split(", ").flat_map(|name| name.split(" or ")))
    );
}

#[test]
fn readme_lists_the_settings_there_are() {
    let mut settings = BTreeSet::new();
    let source = read("src/config/sections.rs") + &read("src/config/access.rs");
    for (section, function) in [
        ("", "fn read<"),
        ("limits.", "fn limits<"),
        ("drain.", "fn drain<"),
        ("", "fn proxies<"),
        ("auth.", "fn auth<"),
        ("auth.", "fn origins<"),
        ("redis.", "fn redis<"),
        ("redis.", "fn prefix<"),
        ("", "fn node_name<"),
        ("management.", "fn management<"),
        ("tracing.", "fn tracing<"),
    ] {
        let body = source.split(function).nth(1).expect("the function");
        let body = &body[..body.find("\n}\n").expect("its end")];
        for call in [
            "reader.setting(",
            "reader.within(",
            "reader.texts(",
            "reader.list(",
            "reader.optional(",
            "reader.optional::<ManagementAuth>(",
            "reader.optional::<RedisUrl>(",
            "reader.optional::<String>(s",
        ] {
            for arguments in body.split(call).skip(1) {
                let key = arguments.split('"').nth(1).expect("a key");
                settings.insert(format!("{section}{key}"));
            }
        }
    }
    settings.extend(
        [
            "stage",
            "redis.tls_ca_file",
            "redis.tls_cert_file",
            "redis.tls_key_file",
            "access_key_id",
            "secret_access_key",
            "management.keys",
            "route_selection_expression",
            "routes",
            "groups",
        ]
        .map(str::to_owned),
    );
    assert_eq!(table(&read("README.md"), "### Settings"), settings);
}

#[test]
fn readme_lists_the_reasons_to_close_there_are() {
    let source = read("src/protocol/close.rs");
    let labels = source.split("pub fn label(&self)").nth(1).expect("the labels of closes");
    let labels = &labels[..labels.find("\n    }\n").expect("its end")];
    let labels = labels.split('"').skip(1).step_by(2);
    assert_eq!(table(&read("README.md"), "### Close codes"), set(labels));
}
