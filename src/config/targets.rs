//! Reads the back ends that are called over HTTP, and the streams that events are appended to.

use http::HeaderName;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use serde_json::{Value, json};

use super::reader::{Reader, Section};
use super::row::{Kind, Row};
use super::settings::{HttpSettings, StreamSettings};
use super::table::{node, stream, target};

/// What a schema says of the name of a back end, which is a metric's label.
pub(super) const NAME: &str = "^[A-Za-z0-9_-]{1,64}$";

/// Most back ends of a kind.
pub(super) const TARGETS_MAX: usize = 300;

/// Headers that are not the operator's to set.
const OURS: [HeaderName; 5] = [CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE];

impl Kind for Vec<HttpSettings> {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        tables()
    }
}

impl Kind for Vec<StreamSettings> {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        tables()
    }
}

/// What a schema says of tables whose names are names of back ends.
pub(super) fn tables() -> Value {
    json!({
        "type": "object",
        "maxProperties": TARGETS_MAX,
        "propertyNames": { "pattern": NAME },
    })
}

/// Takes `[targets]`.
pub(super) fn targets(reader: &mut Reader<'_>) -> Vec<HttpSettings> {
    let tables = named(reader, &node::targets, TARGETS_MAX);
    let targets = tables.into_iter().filter_map(|(name, section)| one(reader, name, section));
    let targets = targets.collect();
    reader.settle(&node::targets, targets)
}

/// Takes `[streams]`.
pub(super) fn streams(reader: &mut Reader<'_>) -> Vec<StreamSettings> {
    let mut streams = Vec::new();
    for (name, mut section) in named(reader, &node::streams, TARGETS_MAX) {
        let max_entries = reader.take_from(&mut section, &stream::max_entries);
        reader.finish(section);
        streams.push(StreamSettings { name, max_entries });
    }
    reader.settle(&node::streams, streams)
}

/// Takes tables whose names are names of back ends, and at most `most`.
pub(super) fn named<'d, K: Kind>(
    reader: &mut Reader<'d>,
    row: &'static Row<K>,
    most: usize,
) -> Vec<(String, Section<'d>)> {
    let sections = reader.named_sections(row);
    for (name, place, _) in sections.iter().filter(|(name, ..)| !is_target_name(name)) {
        let message = "a back end's name has 1 to 64 letters, digits, - and _";
        reader.fault(place.clone(), &format!("{}.{name}", row.name), message);
    }
    if sections.len() > most {
        reader.fault_of(row, format!("more than {most} back ends; have other nodes serve some"));
    }
    sections.into_iter().map(|(name, _, section)| (name, section)).collect()
}

/// As [`NAME`].
fn is_target_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn one<'d>(
    reader: &mut Reader<'d>,
    name: String,
    mut section: Section<'d>,
) -> Option<HttpSettings> {
    let before = reader.fault_count();
    let url = reader.take_from(&mut section, &target::url);
    if url.is_none() && reader.fault_count() == before {
        let message = "missing; for instance url = \"http://127.0.0.1:9000/events\"";
        reader.fault_in(&section, "url", message);
    }
    let format = reader.take_from(&mut section, &target::format);
    let timeout = reader.take_from(&mut section, &target::timeout);
    let max_in_flight = reader.take_from(&mut section, &target::max_in_flight);
    let max_waiting = reader.take_from(&mut section, &target::max_waiting);
    let mut headers = Vec::new();
    for (header, value) in reader.take_from(&mut section, &target::headers).0 {
        match header.parse::<HeaderName>() {
            Ok(header) if !OURS.contains(&header) => headers.push((header, value)),
            _ => {
                let message = format!("{header:?} is no header that can be set; remove it");
                reader.fault_in(&section, "headers", message);
            }
        }
    }
    let parameters = reader.take_from(&mut section, &target::parameters).0;
    reader.finish(section);
    Some(HttpSettings {
        name,
        url: url?.0,
        format,
        headers,
        parameters: parameters.into_iter().collect(),
        timeout,
        max_in_flight,
        max_waiting,
    })
}
