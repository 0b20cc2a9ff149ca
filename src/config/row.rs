//! What is known of a setting: its name, how it is written, what it is by default, what fits, and
//! what a reload does with it.

use std::fmt;

use serde_json::{Value, json};

use super::written::Written;

/// What becomes of a setting when the configuration is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reload {
    /// It stays as it was at the start.
    Restart,
    /// It counts for what begins afterwards: a handshake, a call, a drain.
    Next,
    /// It counts at once, for connections that are open, too.
    Open,
}

/// What settings are made of. Whatever a file can say has one.
pub(super) trait Kind: Clone + PartialEq + Send + Sync + 'static {
    /// Returns what a JSON schema says of it, with the least and the most if there are any.
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        json!({ "type": "string" })
    }

    /// Returns how it is written, as JSON; null where nothing is, or nothing is to be shown.
    fn json(&self) -> Value {
        Value::Null
    }

    /// Returns how people write it, in Markdown.
    fn text(&self) -> String {
        match self.json() {
            Value::Null => "none".to_owned(),
            Value::Array(items) if items.is_empty() => "none".to_owned(),
            Value::Number(number) => number.as_u64().map_or(number.to_string(), grouped),
            Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        }
    }
}

/// A kind that is written as one value, or as a list of such.
pub(super) trait Readable: Kind {
    /// Reads it; tells what is wrong, and returns what is good of it.
    fn take(written: Written<'_>, problems: &mut Vec<String>) -> Option<Self>;
}

/// One setting.
pub(super) struct Row<K: 'static> {
    /// The table that it stands in, dotted; a part that is `*` stands for any of many. Empty for
    /// the top of the file.
    pub(super) table: &'static str,
    pub(super) name: &'static str,
    pub(super) spec: Spec<K>,
    pub(super) reload: Reload,
    /// For operators, in Markdown.
    pub(super) help: &'static str,
}

/// What a setting is by default, and what fits.
pub(super) struct Spec<K: 'static> {
    default: Preset<K>,
    bounds: Option<(K, K)>,
    shape: Option<&'static Shape>,
    /// Says what is wrong with a value that could be read.
    misfit: fn(&Self, &K) -> Option<String>,
    /// The default in words, where it follows from something else.
    shown: Option<&'static str>,
    is_bytes: bool,
    is_required: bool,
}

enum Preset<K: 'static> {
    Value(K),
    Made(fn() -> K),
}

/// What a text has to be like.
pub(super) struct Shape {
    pub(super) fits: fn(&str) -> bool,
    /// The same, as a regular expression of JavaScript.
    pub(super) pattern: &'static str,
    pub(super) is: &'static str,
}

/// What is known of a setting, whatever kind it is of.
pub(super) trait Described: Sync {
    fn table(&self) -> &'static str;
    fn name(&self) -> &'static str;
    fn reload(&self) -> Reload;
    fn help(&self) -> &'static str;
    /// Returns whether its table must have it.
    fn is_required(&self) -> bool;
    /// Returns its default, in Markdown.
    fn default_text(&self) -> String;
    /// Returns the least and the most that it may be, in Markdown.
    fn bounds_text(&self) -> Option<(String, String)>;
    /// Returns what a schema says of it, but for its help.
    fn schema(&self) -> Value;

    /// Returns its dotted name.
    fn key(&self) -> String {
        match self.table() {
            "" => self.name().to_owned(),
            table => format!("{table}.{}", self.name()),
        }
    }
}

/// A setting that is this by default.
pub(super) const fn fixed<K>(default: K) -> Spec<K> {
    spec(Preset::Value(default), None, None, |_, _| None, false)
}

/// A setting that is nothing by default.
pub(super) const fn none<K: Default>() -> Spec<K> {
    spec(Preset::Made(K::default), None, None, |_, _| None, false)
}

/// A setting whose default is made, and is shown in words.
pub(super) const fn made<K>(make: fn() -> K, shown: &'static str) -> Spec<K> {
    spec(Preset::Made(make), None, None, |_, _| None, false).shown(shown)
}

/// A setting with bounds: its default, the least and the most.
pub(super) const fn within<K: PartialOrd + fmt::Debug>(default: K, least: K, most: K) -> Spec<K> {
    spec(Preset::Value(default), Some((least, most)), None, Spec::is_out_of_bounds, false)
}

/// As [`within`], in bytes.
pub(super) const fn bytes(default: usize, least: usize, most: usize) -> Spec<usize> {
    spec(Preset::Value(default), Some((least, most)), None, Spec::is_out_of_bounds, true)
}

/// A text that has to be like something.
pub(super) const fn like(make: fn() -> String, shape: &'static Shape) -> Spec<String> {
    spec(Preset::Made(make), None, Some(shape), Spec::is_unlike, false)
}

const fn spec<K>(
    default: Preset<K>,
    bounds: Option<(K, K)>,
    shape: Option<&'static Shape>,
    misfit: fn(&Spec<K>, &K) -> Option<String>,
    is_bytes: bool,
) -> Spec<K> {
    Spec { default, bounds, shape, misfit, shown: None, is_bytes, is_required: false }
}

impl<K> Spec<K> {
    /// Says its default in words.
    pub(super) const fn shown(mut self, shown: &'static str) -> Self {
        self.shown = Some(shown);
        self
    }

    /// Has it written wherever its table is.
    pub(super) const fn required(mut self) -> Self {
        self.is_required = true;
        self
    }

    /// Returns what is wrong with a value that could be read.
    pub(super) fn misfit(&self, value: &K) -> Option<String> {
        (self.misfit)(self, value)
    }
}

impl<K: Clone> Spec<K> {
    pub(super) fn default(&self) -> K {
        match &self.default {
            Preset::Value(value) => value.clone(),
            Preset::Made(make) => make(),
        }
    }
}

impl<K: PartialOrd + fmt::Debug> Spec<K> {
    fn is_out_of_bounds(&self, value: &K) -> Option<String> {
        let (least, most) = self.bounds.as_ref()?;
        (!(least..=most).contains(&value))
            .then(|| format!("{value:?} is not within {least:?} to {most:?}"))
    }
}

impl Spec<String> {
    fn is_unlike(&self, value: &String) -> Option<String> {
        let shape = self.shape?;
        (!(shape.fits)(value)).then(|| format!("{value:?} is not {}", shape.is))
    }
}

impl<K: Kind> Row<K> {
    fn text(&self, value: &K) -> String {
        let bytes = value.json().as_u64().filter(|_| self.spec.is_bytes);
        bytes.map_or_else(|| value.text(), amount)
    }
}

impl<K: Kind> Described for Row<K> {
    fn table(&self) -> &'static str {
        self.table
    }

    fn name(&self) -> &'static str {
        self.name
    }

    fn reload(&self) -> Reload {
        self.reload
    }

    fn help(&self) -> &'static str {
        self.help
    }

    fn is_required(&self) -> bool {
        self.spec.is_required
    }

    fn default_text(&self) -> String {
        match self.spec.shown {
            Some(shown) => shown.to_owned(),
            None => self.text(&self.spec.default()),
        }
    }

    fn bounds_text(&self) -> Option<(String, String)> {
        self.spec.bounds.as_ref().map(|(least, most)| (self.text(least), self.text(most)))
    }

    fn schema(&self) -> Value {
        let mut schema = K::schema(self.spec.bounds.as_ref());
        if let Value::Object(fields) = &mut schema {
            let default = self.spec.default().json();
            if self.spec.shown.is_none() && !self.spec.is_required && !default.is_null() {
                fields.insert("default".to_owned(), default);
            }
            if let Some(shape) = self.spec.shape {
                fields.insert("pattern".to_owned(), shape.pattern.into());
            }
        }
        schema
    }
}

fn amount(bytes: u64) -> String {
    const UNITS: [(&str, u32); 5] =
        [("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match UNITS.iter().find(|(_, bits)| bytes > 0 && bytes.trailing_zeros() >= *bits) {
        Some((unit, bits)) => format!("{} {unit}", bytes >> bits),
        None => grouped(bytes),
    }
}

/// Writes a number in groups of three digits.
fn grouped(number: u64) -> String {
    if number < 1_000 {
        return number.to_string();
    }
    format!("{},{:03}", grouped(number / 1_000), number % 1_000)
}
