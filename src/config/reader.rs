//! Reads settings out of a TOML document and the environment, and keeps every fault with its line
//! and its fix.
//!
//! A setting `limits.idle_timeout` may be overridden by `GATECAST_LIMITS_IDLE_TIMEOUT`. What the
//! program never asks for is unknown, and a fault: a typing error must not pass as a default.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::Fault;
use super::row::{Described as _, Kind, Readable, Reload, Row};
use super::table::ROWS;
use super::values::{Change, Values};
use super::variables::{self, nearest, variable};
use super::written::Written;

/// All that can be asked for; collects the faults.
pub(super) struct Reader<'d> {
    file: &'d str,
    overrides: &'d BTreeMap<String, String>,
    /// Where each line of the document ends.
    ends: Vec<usize>,
    /// The tables that the file may have once, by their names.
    tables: BTreeMap<&'static str, Section<'d>>,
    /// The variables that were asked for.
    known: BTreeSet<String>,
    /// Where each setting that somebody has set comes from.
    given: BTreeMap<String, Place>,
    /// What they were read as before, if they were.
    held: Option<&'d Values>,
    /// What they are read as now.
    values: Values,
    /// What is not as it was.
    changes: Vec<Change>,
    faults: Vec<(Place, String, String)>,
    /// What is understood, and yet hardly meant.
    warnings: Vec<String>,
}

/// What reading has found besides the settings.
pub(super) struct Findings {
    /// In the order of the file.
    pub(super) faults: Vec<Fault>,
    /// What to tell the operator that is no fault.
    pub(super) warnings: Vec<String>,
    pub(super) values: Values,
    /// What is not as it was.
    pub(super) changes: Vec<Change>,
}

/// Where something is said.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// On a line of the file.
    Line(usize),
    Variable(String),
}

/// One table of the document, whose keys are taken one by one.
#[derive(Default)]
pub(super) struct Section<'d> {
    path: String,
    /// Where it begins.
    at: usize,
    table: DeTable<'d>,
    /// What was asked for.
    known: Vec<&'static str>,
    /// Whether there are others of the same name, so that no variable can mean one.
    is_of_many: bool,
}

impl<'d> Reader<'d> {
    /// Parses a document; an empty one takes its place if it is not TOML. A setting that needs a
    /// restart keeps the value that is `held`.
    pub(super) fn open(
        file: &'d str,
        text: &'d str,
        overrides: &'d BTreeMap<String, String>,
        held: Option<&'d Values>,
    ) -> Self {
        let ends =
            text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect();
        let (tables, known, given, values) = Default::default();
        let (changes, faults, warnings) = Default::default();
        let mut reader = Self {
            file,
            overrides,
            ends,
            tables,
            known,
            given,
            held,
            values,
            changes,
            faults,
            warnings,
        };
        let table = match DeTable::parse(text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                reader.fault(reader.line(at), "", error.message());
                DeTable::new()
            }
        };
        let mut top = Section { table, ..Section::default() };
        for row in ROWS {
            if !row.table().is_empty()
                && !row.table().contains('*')
                && !reader.tables.contains_key(row.table())
            {
                let section = reader.section(&mut top, row.table());
                reader.tables.insert(row.table(), section);
            }
        }
        reader.tables.insert("", top);
        reader
    }

    /// Takes the table `name` out of `parent`; an empty one if it is not there.
    fn section(&mut self, parent: &mut Section<'d>, name: &'static str) -> Section<'d> {
        let value = parent.take(name);
        let at = value.as_ref().map_or(0, |value| value.span().start);
        let table = value.and_then(|value| self.table(name, value)).unwrap_or_default();
        Section { path: name.to_owned(), at, table, ..Section::default() }
    }

    /// Takes a setting; its default if it is not there or faulty.
    pub(super) fn take<K: Readable>(&mut self, row: &'static Row<K>) -> K {
        let mut section = self.tables.remove(row.table).unwrap_or_default();
        let value = self.take_from(&mut section, row);
        self.tables.insert(row.table, section);
        self.settle(row, value)
    }

    /// Compares a setting with what it was. Returns what is in force: the old value if its row says
    /// that a change needs a restart, otherwise the new.
    pub(super) fn settle<K: Kind>(&mut self, row: &'static Row<K>, value: K) -> K {
        let other = self.held.and_then(|held| held.get(row)).filter(|held| **held != value);
        self.changes.extend(other.map(|_| Change { key: row.key(), reload: row.reload }));
        let counts = other.filter(|_| row.reload == Reload::Restart).cloned().unwrap_or(value);
        self.values.set(row, counts.clone());
        counts
    }

    /// Takes a setting of a table of which there are many.
    pub(super) fn take_from<K: Readable>(
        &mut self,
        section: &mut Section<'d>,
        row: &'static Row<K>,
    ) -> K {
        let (place, key) = (self.place_in(section, row.name), section.dotted(row.name));
        let written = match (self.variable(section, row.name), section.take(row.name)) {
            (Some(text), _) => Written::Variable(text),
            (None, Some(value)) => Written::File(value.into_inner()),
            (None, None) => return row.spec.default(),
        };
        self.given.insert(key.clone(), place.clone());
        let mut problems = Vec::new();
        let mut value = K::take(written, &mut problems);
        if let Some(problem) = value.as_ref().and_then(|value| row.spec.misfit(value)) {
            problems.push(problem);
            value = None;
        }
        for problem in problems {
            self.fault(place.clone(), &key, problem);
        }
        value.unwrap_or_else(|| row.spec.default())
    }

    /// Takes a table whose members are tables with names of their own.
    pub(super) fn named_sections<K: Kind>(
        &mut self,
        row: &'static Row<K>,
    ) -> Vec<(String, Place, Section<'d>)> {
        let mut parent = self.tables.remove(row.table).unwrap_or_default();
        let members = self.section(&mut parent, row.name).table;
        self.tables.insert(row.table, parent);
        let mut sections = Vec::new();
        for (name, value) in members {
            let at = name.span().start;
            let name = name.into_inner().into_owned();
            let path = format!("{}.{name}", row.name);
            self.given.insert(path.clone(), self.line(at));
            if let Some(table) = self.table(&path, value) {
                sections.push((
                    name,
                    self.line(at),
                    Section { path, at, table, ..Section::default() },
                ));
            }
        }
        sections
    }

    /// Takes a list of tables.
    pub(super) fn list_of_sections<K: Kind>(&mut self, row: &'static Row<K>) -> Vec<Section<'d>> {
        let Some(parent) = self.tables.get_mut(row.table) else { return Vec::new() };
        let path = parent.dotted(row.name);
        let Some(value) = parent.take(row.name) else { return Vec::new() };
        let place = self.line(value.span().start);
        self.given.insert(path.clone(), place.clone());
        let DeValue::Array(items) = value.into_inner() else {
            self.fault(place, &path, format!("expected a list of tables; write [[{path}]]"));
            return Vec::new();
        };
        let tables = items
            .into_iter()
            .filter_map(|item| Some((item.span().start, self.table(&path, item)?)));
        let section = |(at, table)| Section {
            path: path.clone(),
            at,
            table,
            known: Vec::new(),
            is_of_many: true,
        };
        tables.map(section).collect()
    }

    /// Reports every key of a table that nothing asked for.
    pub(super) fn finish(&mut self, mut section: Section<'d>) {
        for (key, _) in std::mem::take(&mut section.table) {
            let place = self.line(key.span().start);
            let key = key.into_inner();
            let hint = match nearest(&key, &section.known) {
                Some(known) => format!("did you mean {known:?}?"),
                None => format!("known are: {}", section.known.join(", ")),
            };
            self.fault(place, &section.dotted(&key), format!("unknown key; {hint}"));
        }
    }

    /// Records a fault.
    pub(super) fn fault(&mut self, place: Place, key: &str, message: impl Into<String>) {
        self.faults.push((place, key.to_owned(), message.into()));
    }

    /// Records a fault of a setting of a table with a name of its own, whether it is there or not.
    pub(super) fn fault_in(
        &mut self,
        section: &Section<'_>,
        name: &str,
        message: impl Into<String>,
    ) {
        let key = section.dotted(name);
        let place = self.given.get(&key).cloned().unwrap_or_else(|| self.line(section.at));
        self.fault(place, &key, message);
    }

    /// Records a fault of a setting that was taken.
    pub(super) fn fault_of<K: Kind>(&mut self, row: &'static Row<K>, message: impl Into<String>) {
        let key = row.key();
        let at = self.tables.get(row.table).map_or(0, |section| section.at);
        let place = self.given.get(&key).cloned().unwrap_or_else(|| self.line(at));
        self.fault(place, &key, message);
    }

    /// Records a fault of settings that do not go together, at the first of them that somebody has
    /// set.
    pub(super) fn contradiction(&mut self, keys: &[&str], message: &str) {
        let given = keys.iter().find_map(|key| Some((*key, self.given.get(*key)?.clone())));
        let first = keys.first().copied().unwrap_or_default();
        let (key, place) = given.unwrap_or((first, Place::Line(1)));
        self.fault(place, key, message);
    }

    /// Returns where the value of a key comes from; to be asked before it is taken.
    pub(super) fn place_in(&self, section: &Section<'d>, name: &str) -> Place {
        let variable = variable(&section.dotted(name));
        if !section.is_of_many && self.overrides.contains_key(&variable) {
            return Place::Variable(variable);
        }
        let at = section.table.iter().find(|(key, _)| key.get_ref().as_ref() == name);
        self.line(at.map_or(section.at, |(key, _)| key.span().start))
    }

    /// Returns whether somebody has set a setting that was asked for.
    pub(super) fn is_given(&self, key: &str) -> bool {
        self.given.contains_key(key)
    }

    /// Returns a setting that somebody has set, of those whose names begin so.
    pub(super) fn given_below(&self, start: &str) -> Option<String> {
        self.given.keys().find(|key| key.starts_with(start)).cloned()
    }

    /// Keeps something to tell the operator that is no fault.
    pub(super) fn warn(&mut self, message: String) {
        self.warnings.push(message);
    }

    /// Returns a path that is relative to the folder of the file.
    pub(super) fn beside(&self, path: &str) -> PathBuf {
        Path::new(self.file).parent().map_or_else(|| path.into(), |folder| folder.join(path))
    }

    /// Returns how many faults there are so far.
    pub(super) fn fault_count(&self) -> usize {
        self.faults.len()
    }

    /// Ends reading.
    pub(super) fn end(mut self) -> Findings {
        for (_, section) in std::mem::take(&mut self.tables) {
            self.finish(section);
        }
        self.faults.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        let names = self.overrides.keys().map(String::as_str);
        self.warnings.extend(variables::unknown(names, &self.known));
        let told = |(place, key, message)| match place {
            Place::Line(line) => Fault { place: format!("{}:{line}", self.file), key, message },
            Place::Variable(place) => Fault { place, key, message },
        };
        Findings {
            faults: self.faults.into_iter().map(told).collect(),
            warnings: self.warnings,
            values: self.values,
            changes: self.changes,
        }
    }

    /// Takes the variable of a key.
    fn variable(&mut self, section: &Section<'d>, name: &str) -> Option<&'d str> {
        if section.is_of_many {
            return None;
        }
        let name = variable(&section.dotted(name));
        let value = self.overrides.get(&name);
        self.known.insert(name);
        value.map(String::as_str)
    }

    fn table(&mut self, path: &str, value: Spanned<DeValue<'d>>) -> Option<DeTable<'d>> {
        let place = self.line(value.span().start);
        match value.into_inner() {
            DeValue::Table(table) => Some(table),
            _ => {
                self.fault(place, path, format!("expected a table; write [{path}]"));
                None
            }
        }
    }

    fn line(&self, at: usize) -> Place {
        Place::Line(self.ends.partition_point(|end| *end < at) + 1)
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
