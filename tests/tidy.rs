//! What the code promises of itself: the direction of its dependencies, its size, and tables in the
//! README that agree with it.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::string_slice,
    reason = "tests stop at what they did not expect"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders of `src` in the order of their layers: each uses those before it, and none behind it.
const LAYERS: &[&str] = &[
    "protocol",
    "sigv4",
    "model",
    "ops",
    "routing",
    "config",
    "limits",
    "shard",
    "cluster",
    "integrations",
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

/// A file without its tests.
fn code_of(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().expect("a first part")
}

fn is_tests(module: &str) -> bool {
    module.ends_with("::tests") || module.contains("::conformance") || module.ends_with("::bench")
}

/// What a file of `src` imports, as the files that hold it: by `use` of `crate`, `self` or `super`.
/// Tests do not count.
fn imports(path: &Path, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let (module, text) = (module_of(path), fs::read_to_string(path).expect("readable"));
    let parent =
        |module: &str| module.rsplit_once("::").map_or("", |(parent, _)| parent).to_owned();
    let mut used = BTreeSet::new();
    for start in ["use crate::", "use super::", "use self::"] {
        for tree in code_of(&text).split(start).skip(1) {
            let tree: String = tree.split(';').next().expect("a path").split_whitespace().collect();
            let (mut base, mut tree) = match start {
                "use crate::" => (String::new(), &*tree),
                "use self::" => (module.clone(), &*tree),
                _ => (parent(&module), &*tree),
            };
            while let Some(rest) = tree.strip_prefix("super::") {
                (base, tree) = (parent(&base), rest);
            }
            for leaf in leaves(tree) {
                let full = format!("{base}::{leaf}");
                let full = full.trim_start_matches("::");
                let ends: Vec<_> =
                    full.match_indices("::").map(|(at, _)| at).chain([full.len()]).collect();
                let holder = ends.iter().rev().find_map(|end| modules.get(&full[..*end]));
                used.extend(holder.filter(|holder| **holder != module).cloned());
            }
        }
    }
    used
}

/// The paths of a `use` without its braces.
fn leaves(tree: &str) -> Vec<String> {
    let Some((stem, inner)) = tree.split_once('{') else { return vec![tree.to_owned()] };
    let (inner, mut depth, mut start, mut found) =
        (inner.strip_suffix('}').expect("its end"), 0, 0, Vec::new());
    for (at, byte) in inner.bytes().chain([b',']).enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 0 => {
                let part = &inner[start..at];
                found.extend(leaves(part).into_iter().map(|leaf| format!("{stem}{leaf}")));
                start = at + 1;
            }
            _ => {}
        }
    }
    found
}

/// Which file imports which others; tests, the suites of contracts and benchmarks left out.
fn import_graph() -> BTreeMap<String, BTreeSet<String>> {
    let paths: Vec<_> = files("src")
        .into_iter()
        .filter(|path| {
            !is_tests(&module_of(path)) && !["lib", "main", "fuzz"].contains(&&*module_of(path))
        })
        .collect();
    let modules: BTreeSet<_> = paths.iter().map(|path| module_of(path)).collect();
    paths.iter().map(|path| (module_of(path), imports(path, &modules))).collect()
}

#[test]
fn folders_depend_only_on_those_before_them() {
    let mut faults = Vec::new();
    for (module, used) in import_graph() {
        let own =
            layer(&module).unwrap_or_else(|| panic!("{module} is in no layer: a folder of LAYERS"));
        let above = used.iter().filter(|used| layer(used).is_none_or(|layer| layer > own));
        faults.extend(above.map(|used| format!("{module} uses {used}, which is a layer above it")));
    }
    assert_eq!(faults, [""; 0]);
}

/// A file that imports none of the others, or is imported by none.
fn outside_of_circles(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let is_imported = |module: &String| graph.values().any(|used| used.contains(module));
    graph
        .iter()
        .find(|(module, used)| used.is_empty() || !is_imported(module))
        .map(|(module, _)| module.clone())
}

#[test]
fn files_do_not_import_each_other_in_circles() {
    let mut graph = import_graph();
    while let Some(free) = outside_of_circles(&graph) {
        graph.remove(&free);
        graph.values_mut().for_each(|used| _ = used.remove(&free));
    }
    assert_eq!(graph, BTreeMap::new());
}

/// `cargo test --test tidy print_ -- --ignored --nocapture` prints the folders of `src`: files, and
/// what each imports.
#[test]
#[ignore = "prints, and checks nothing"]
fn print_the_folders_and_what_they_import() {
    let (graph, folder) =
        (import_graph(), |module: &str| module.split("::").next().expect("a part").to_owned());
    println!("| folder | files | imports of others, by folder |\n|---|---:|---|");
    for own in LAYERS {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let of_folder: Vec<_> = graph.iter().filter(|(module, _)| folder(module) == *own).collect();
        for used in of_folder.iter().flat_map(|(_, used)| *used).map(|used| folder(used)) {
            *counts.entry(used).or_default() += 1;
        }
        counts.remove(*own);
        let counts: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        println!("| {own} | {} | {} |", of_folder.len(), counts.join(", "));
    }
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
        let is_tests =
            path.file_stem().is_some_and(|stem| stem == "tests" || stem == "conformance");
        if code_of(&text).lines().count() > LINES_MAX && !is_tests {
            faults.push(format!("{name} has more than {LINES_MAX} lines"));
        }
    }
    assert_eq!(faults, [""; 0]);
}

#[test]
fn only_one_module_knows_each_outside_thing() {
    for (word, module) in
        [("warp::", "edge::http"), ("std::env::", "cli"), ("\"gatecast_", "ops::metrics")]
    {
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
    let (_, section) = readme
        .split_once(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("no heading {heading}"));
    let rows = section
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'));
    let cells = rows
        .skip(2)
        .map(|row| row.trim_start_matches('|').split('|').next().expect("a cell").trim());
    let names: BTreeSet<String> = cells.map(|cell| cell.trim_matches('`').to_owned()).collect();
    assert!(!names.is_empty(), "no table under {heading}");
    names
}

fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

#[test]
fn readme_lists_the_metrics_there_are() {
    let sources =
        files("src").into_iter().filter(|path| module_of(path).starts_with("ops::metrics"));
    let source: String = sources.map(|path| fs::read_to_string(path).expect("readable")).collect();
    let names =
        source.split("\"gatecast_").skip(1).map(|rest| rest.split('"').next().expect("its end"));
    let names =
        names.filter(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
    assert_eq!(
        table(&read("README.md"), "### Metrics"),
        names.map(|name| format!("gatecast_{name}")).collect()
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
        .split("const INTEGRATIONS: &str =")
        .nth(1)
        .and_then(|rest| rest.split('"').nth(1))
        .expect("the list");
    assert_eq!(
        table(&read("README.md"), "### Integrations"),
        set(list.split(", ").flat_map(|name| name.split(" or ")))
    );
}

/// What the program says of its settings.
fn schema(format: &str) -> String {
    let program =
        Command::new(env!("CARGO_BIN_EXE_gatecast")).args(["schema", "--format", format]).output();
    String::from_utf8(program.expect("the program runs").stdout).expect("UTF-8")
}

/// What is generated, and where it stands; with `WRITE=1` in the environment it is written there.
fn stands_in(path: &str, before: &str, generated: &str, after: &str) {
    if std::env::var_os("WRITE").is_some() {
        fs::write(root().join(path), [before, generated, after].concat()).expect("written");
    }
    let is_there = read(path) == [before, generated, after].concat();
    assert!(is_there, "{path} is out of date: run WRITE=1 cargo test --test tidy");
}

#[test]
fn readme_has_the_settings_there_are() {
    let readme = read("README.md");
    let (before, section) = readme.split_once("\n### Settings\n").expect("the heading");
    let (text, section) = section.split_once("\n|").expect("the table");
    let (_, after) = section.split_once("|\n\n").expect("the end of the table");
    let before = format!("{before}\n### Settings\n{text}\n");
    stands_in("README.md", &before, &schema("markdown"), &format!("\n{after}"));
}

#[test]
fn the_schema_of_the_configuration_is_published() {
    stands_in("docs/reference/gatecast.schema.json", "", &schema("json"), "");
}

#[test]
fn readme_lists_the_reasons_to_close_there_are() {
    let source = read("src/protocol/close.rs");
    let labels = source.split("fn label(&self)").nth(1).expect("the labels of closes");
    let labels = &labels[..labels.find("\n    }\n").expect("its end")];
    let labels = labels.split('"').skip(1).step_by(2);
    assert_eq!(table(&read("README.md"), "### Close codes"), set(labels));
}
