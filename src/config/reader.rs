//! Reads settings out of a TOML document and the environment, and keeps every fault with its line and its fix.
//!
//! A setting `limits.idle_timeout` may be overridden by `GATECAST_LIMITS_IDLE_TIMEOUT`. What the program never asks for is
//! unknown, and a fault: a typing error must not pass as a default.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::Fault;
use super::variables::{self, nearest, variable};

/// A value that can be written as one text, in the file or in a variable.
pub(super) trait Setting: Sized {
    /// What is expected, for the fault's text: `a duration such as "25s"`.
    const EXPECTED: &'static str;

    /// Whether a fault must not repeat the value.
    const SECRET: bool = false;

    /// Reads the value.
    fn read(text: &str) -> Option<Self>;
}

/// All that can be asked for; collects the faults.
pub(super) struct Reader<'d> {
    file: &'d str,
    text: &'d str,
    overrides: &'d BTreeMap<String, String>,
    /// Where each line of the document ends.
    ends: Vec<usize>,
    /// The variables that were asked for.
    known: BTreeSet<String>,
    /// Where each setting that somebody has set comes from.
    given: BTreeMap<String, String>,
    faults: Vec<Fault>,
    /// What is understood, and yet hardly meant.
    warnings: Vec<String>,
}

/// One table of the document, whose keys are taken one by one.
pub(super) struct Section<'d> {
    path: String,
    /// Where it begins.
    at: usize,
    table: DeTable<'d>,
    known: Vec<&'static str>,
}

impl<'d> Reader<'d> {
    pub(super) fn new(file: &'d str, text: &'d str, overrides: &'d BTreeMap<String, String>) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect();
        let (known, given, faults, warnings) = Default::default();
        Self { file, text, overrides, ends, known, given, faults, warnings }
    }

    /// Parses the document; an empty one takes its place if it is not TOML.
    pub(super) fn document(&mut self) -> Section<'d> {
        let table = match DeTable::parse(self.text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                self.fault_at(at, "", error.message());
                DeTable::new()
            }
        };
        Section { path: String::new(), at: 0, table, known: Vec::new() }
    }

    /// Takes the table `key` out of `parent`; an empty one if it is not there.
    pub(super) fn section(&mut self, parent: &mut Section<'d>, key: &'static str) -> Section<'d> {
        let path = parent.dotted(key);
        let value = parent.take(key);
        let at = value.as_ref().map_or(0, |value| value.span().start);
        let table = value.and_then(|value| self.table(&path, value)).unwrap_or_default();
        Section { path, at, table, known: Vec::new() }
    }

    /// Takes every member of `parent` that is a table, with its name: for tables whose keys are names.
    pub(super) fn named_sections(&mut self, parent: Section<'d>) -> Vec<(String, usize, Section<'d>)> {
        let mut sections = Vec::new();
        for (name, value) in parent.table {
            let at = name.span().start;
            let name = name.into_inner().into_owned();
            let path = format!("{}.{name}", parent.path);
            self.given.insert(path.clone(), format!("{}:{}", self.file, self.line(at)));
            if let Some(table) = self.table(&path, value) {
                sections.push((name, at, Section { path, at, table, known: Vec::new() }));
            }
        }
        sections
    }

    /// Takes a list of tables.
    pub(super) fn list_of_sections(
        &mut self,
        parent: &mut Section<'d>,
        key: &'static str,
    ) -> Vec<Section<'d>> {
        let path = parent.dotted(key);
        let Some(value) = parent.take(key) else { return Vec::new() };
        let at = value.span().start;
        let DeValue::Array(items) = value.into_inner() else {
            self.fault_at(at, &path, &format!("expected a list of tables; write [[{path}]]"));
            return Vec::new();
        };
        let tables = items.into_iter().filter_map(|item| Some((item.span().start, self.table(&path, item)?)));
        tables.map(|(at, table)| Section { path: path.clone(), at, table, known: Vec::new() }).collect()
    }

    /// Takes a setting; `default` if it is not there or faulty.
    pub(super) fn setting<T: Setting>(
        &mut self,
        section: &mut Section<'d>,
        key: &'static str,
        default: T,
    ) -> T {
        self.optional(section, key).unwrap_or(default)
    }

    /// Takes a setting that has to lie within `range`.
    pub(super) fn within<T>(
        &mut self,
        section: &mut Section<'d>,
        key: &'static str,
        default: T,
        range: RangeInclusive<T>,
    ) -> T
    where
        T: Setting + PartialOrd + fmt::Debug,
    {
        let place = self.place(section, key);
        match self.optional(section, key) {
            Some(value) if !range.contains(&value) => {
                let message = format!("{value:?} is not within {:?} to {:?}", range.start(), range.end());
                self.faults.push(Fault { place, key: section.dotted(key), message });
                default
            }
            value => value.unwrap_or(default),
        }
    }

    /// Takes a setting that may be missing.
    pub(super) fn optional<T: Setting>(&mut self, section: &mut Section<'d>, key: &'static str) -> Option<T> {
        let place = self.place(section, key);
        let path = section.dotted(key);
        let from_file = section.take(key);
        self.note(&path, &place, from_file.is_some());
        let text = match self.variable(&path) {
            Some(text) => text.clone(),
            None => match scalar(from_file?.into_inner()) {
                Some(text) => text,
                None => {
                    self.faults.push(Fault {
                        place,
                        key: path,
                        message: format!("expected {}", T::EXPECTED),
                    });
                    return None;
                }
            },
        };
        let value = T::read(&text);
        if value.is_none() {
            let shown = if T::SECRET { "this".to_owned() } else { format!("{text:?}") };
            let message = format!("{shown} is not {}", T::EXPECTED);
            self.faults.push(Fault { place, key: path, message });
        }
        value
    }

    /// Takes a list of texts: an array in the file, separated by commas in a variable.
    pub(super) fn texts(&mut self, section: &mut Section<'d>, key: &'static str) -> Vec<String> {
        let place = self.place(section, key);
        let path = section.dotted(key);
        let from_file = section.take(key);
        self.note(&path, &place, from_file.is_some());
        if let Some(text) = self.variable(&path) {
            return text
                .split(',')
                .map(|item| item.trim().to_owned())
                .filter(|item| !item.is_empty())
                .collect();
        }
        let Some(value) = from_file else { return Vec::new() };
        let items = match value.into_inner() {
            DeValue::Array(items) => {
                items.into_iter().map(|item| scalar(item.into_inner())).collect::<Option<Vec<_>>>()
            }
            _ => None,
        };
        items.unwrap_or_else(|| {
            let message = "expected a list of texts, such as [\"a\", \"b\"]".to_owned();
            self.faults.push(Fault { place, key: path, message });
            Vec::new()
        })
    }

    /// Takes a list of values, written as [`Reader::texts`] has it.
    pub(super) fn list<T: Setting>(&mut self, section: &mut Section<'d>, key: &'static str) -> Vec<T> {
        let place = self.place(section, key);
        let mut values = Vec::new();
        for text in self.texts(section, key) {
            match T::read(&text) {
                Some(value) => values.push(value),
                None => {
                    let message = format!("{text:?} is not {}", T::EXPECTED);
                    self.fault(place.clone(), section.dotted(key), message);
                }
            }
        }
        values
    }

    /// Reports every key of `section` that nothing asked for.
    pub(super) fn finish(&mut self, mut section: Section<'d>) {
        for (key, _) in std::mem::take(&mut section.table) {
            let at = key.span().start;
            let key = key.into_inner();
            let hint = match nearest(&key, &section.known) {
                Some(known) => format!("did you mean {known:?}?"),
                None => format!("known are: {}", section.known.join(", ")),
            };
            let path = section.dotted(&key);
            self.fault_at(at, &path, &format!("unknown key; {hint}"));
        }
    }

    /// Records a fault at a byte of the document.
    pub(super) fn fault_at(&mut self, at: usize, key: &str, message: &str) {
        let place = format!("{}:{}", self.file, self.line(at));
        self.faults.push(Fault { place, key: key.to_owned(), message: message.to_owned() });
    }

    /// Records a fault of `section.key`, wherever its value came from.
    pub(super) fn fault(&mut self, place: String, key: String, message: impl Into<String>) {
        self.faults.push(Fault { place, key, message: message.into() });
    }

    /// Returns where the value of `section.key` comes from; to be asked before it is taken.
    pub(super) fn place(&self, section: &Section<'d>, key: &str) -> String {
        let variable = variable(&section.dotted(key));
        if self.overrides.contains_key(&variable) {
            return variable;
        }
        let at = section.table.iter().find(|(name, _)| name.get_ref().as_ref() == key);
        let line = self.line(at.map_or(section.at, |(name, _)| name.span().start));
        format!("{}:{line}", self.file)
    }

    /// Returns what to tell the operator: warnings, and the variables that nothing asked for.
    pub(super) fn warnings(&self) -> Vec<String> {
        let names = self.overrides.keys().map(String::as_str);
        self.warnings.iter().cloned().chain(variables::unknown(names, &self.known)).collect()
    }

    /// Returns whether the file or a variable says anything of `section.key`; to be asked before it is taken.
    pub(super) fn is_set(&self, section: &Section<'d>, key: &str) -> bool {
        self.overrides.contains_key(&variable(&section.dotted(key))) || section.table.contains_key(key)
    }

    /// Returns whether somebody has set a setting that was asked for.
    pub(super) fn is_given(&self, key: &str) -> bool {
        self.given.contains_key(key)
    }

    /// Returns a setting that somebody has set, of those whose names begin so.
    pub(super) fn given_below(&self, start: &str) -> Option<String> {
        self.given.keys().find(|key| key.starts_with(start)).cloned()
    }

    /// Records a fault of settings that do not go together, at the first of them that somebody has set.
    pub(super) fn contradiction(&mut self, keys: &[&str], message: &str) {
        let given = keys.iter().find_map(|key| Some((*key, self.given.get(*key)?.clone())));
        let first = keys.first().copied().unwrap_or_default();
        let (key, place) = given.unwrap_or_else(|| (first, format!("{}:1", self.file)));
        self.fault(place, key.to_owned(), message);
    }

    /// Keeps something to tell the operator that is no fault.
    pub(super) fn warn(&mut self, message: String) {
        self.warnings.push(message);
    }

    /// Returns how many faults there are so far.
    pub(super) fn fault_count(&self) -> usize {
        self.faults.len()
    }

    /// Ends reading.
    pub(super) fn into_faults(self) -> Vec<Fault> {
        self.faults
    }

    /// Remembers where a setting comes from, if it comes from anywhere.
    fn note(&mut self, path: &str, place: &str, in_file: bool) {
        if in_file || self.overrides.contains_key(&variable(path)) {
            self.given.insert(path.to_owned(), place.to_owned());
        }
    }

    /// Takes the variable of a dotted key.
    fn variable(&mut self, path: &str) -> Option<&'d String> {
        let name = variable(path);
        let value = self.overrides.get(&name);
        self.known.insert(name);
        value
    }

    fn table(&mut self, path: &str, value: Spanned<DeValue<'d>>) -> Option<DeTable<'d>> {
        let at = value.span().start;
        match value.into_inner() {
            DeValue::Table(table) => Some(table),
            _ => {
                self.fault_at(at, path, &format!("expected a table; write [{path}]"));
                None
            }
        }
    }

    fn line(&self, at: usize) -> usize {
        self.ends.partition_point(|end| *end < at) + 1
    }
}

impl<'d> Section<'d> {
    /// Returns the dotted name of a key of this table.
    pub(super) fn dotted(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }

    fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'d>>> {
        self.known.push(key);
        self.table.remove(key)
    }
}

fn scalar(value: DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.into_owned()),
        DeValue::Integer(number) => match number.radix() {
            10 => Some(number.as_str().to_owned()),
            radix => i64::from_str_radix(number.as_str(), radix).ok().map(|number| number.to_string()),
        },
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(flag) => Some(flag.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}
