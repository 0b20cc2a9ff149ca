//! Reads `[functions]`: what this node runs in processes of its own.

use serde_json::{Value, json};

use super::kinds::domain::Domain;
use super::reader::{Reader, Section};
use super::row::Kind;
use super::settings::{FunctionSettings, Runtime};
use super::table::{function, node};
use super::targets::{NAME, named};

/// Most functions: each has a task, and rows of metrics.
const FUNCTIONS_MAX: usize = 1_000;

impl Kind for Vec<FunctionSettings> {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        let with_handler = json!({ "properties": { "runtime": { "enum": ["node", "python"] } } });
        let condition = json!({ "if": with_handler, "then": { "required": ["handler"] } });
        json!({
            "type": "object",
            "maxProperties": FUNCTIONS_MAX,
            "propertyNames": { "pattern": NAME },
            "additionalProperties": { "allOf": [condition] },
        })
    }
}

/// Takes `[functions]`.
pub(super) fn read(reader: &mut Reader<'_>) -> Vec<FunctionSettings> {
    let mut functions = Vec::new();
    for (name, section) in named(reader, &node::functions, FUNCTIONS_MAX) {
        functions.extend(function(reader, name, section));
    }
    reader.settle(&node::functions, functions)
}

fn function<'d>(
    reader: &mut Reader<'d>,
    name: String,
    mut section: Section<'d>,
) -> Option<FunctionSettings> {
    let before = reader.fault_count();
    let runtime = reader.take_from(&mut section, &function::runtime);
    let code = reader.take_from(&mut section, &function::code);
    let handler =
        reader.take_from(&mut section, &function::handler).filter(|handler| !handler.is_empty());
    let command = reader.take_from(&mut section, &function::command);
    let timeout = reader.take_from(&mut section, &function::timeout);
    let min_processes = reader.take_from(&mut section, &function::min_processes);
    let max_processes = reader.take_from(&mut section, &function::max_processes);
    let concurrency = reader.take_from(&mut section, &function::concurrency);
    let environment = reader.take_from(&mut section, &function::environment).0;
    let hosts = reader.take_from(&mut section, &function::hosts).0;
    let callback_domain =
        reader.take_from(&mut section, &function::callback_domain).map(|Domain(name)| name);
    let is_faulty = reader.fault_count() > before;
    let mut fault = |key: &str, message: String| reader.fault_in(&section, key, message);
    if runtime.is_none() && !is_faulty {
        let message = "missing; set it to \"node\", \"python\" or \"command\"".to_owned();
        fault("runtime", message);
    }
    if handler.is_none() && matches!(runtime, Some(Runtime::Node | Runtime::Python)) {
        fault("handler", "missing; for instance handler = \"index.handler\"".to_owned());
    }
    if min_processes > max_processes {
        let message = format!("less than min_processes, {min_processes}; raise it, or lower that");
        fault("max_processes", message);
    }
    let Some(code) = code else {
        if !is_faulty {
            fault("code", "missing; set it to the folder of the code".to_owned());
        }
        reader.finish(section);
        return None;
    };
    let code = reader.beside(&code);
    if !code.is_dir() {
        let message = format!("{} is no folder; name the one that the code is in", code.display());
        reader.fault_in(&section, function::code.name, message);
    }
    reader.finish(section);
    Some(FunctionSettings {
        name,
        runtime: runtime?,
        handler,
        code,
        command,
        timeout,
        min_processes,
        max_processes,
        concurrency,
        environment,
        hosts,
        callback_domain,
    })
}
