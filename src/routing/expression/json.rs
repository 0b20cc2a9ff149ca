//! A message's JSON (RFC 8259), taken apart once: where each value begins and ends.
//!
//! Rule: one pass that neither recurses nor decodes, whatever the text; so a look at a message
//! costs time and memory in proportion to its length. Values stay the text that was typed.

use std::borrow::Cow;
use std::ops::Range;

/// Most levels of arrays and objects, one inside the other. As `serde_json` and most parsers in
/// back ends have it: what nests deeper could not be read there either.
pub(crate) const DEPTH_MAX: usize = 128;

/// Stands for "none" in an index.
const NONE: u32 = u32::MAX;

/// Room for a message with a few members.
const NODES: usize = 16;

/// A text that is JSON.
#[derive(Debug)]
pub(super) struct Json<'a> {
    text: &'a str,
    /// All values, and the names of members before theirs, in the order of the text.
    nodes: Vec<JsonNode>,
}

#[derive(Clone, Copy, Debug)]
struct JsonNode {
    /// Where its text begins, in bytes.
    start: u32,
    /// Where its text ends; while an array or object is read, the index of the one around it.
    end: u32,
    /// The index behind all that is inside.
    after: u32,
    /// Whether it is a string with escapes.
    is_escaped: bool,
}

/// Why a text has no values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JsonError {
    /// It is not JSON.
    Grammar,
    /// It nests deeper than [`DEPTH_MAX`]. Nothing behind the place where it does was read.
    TooDeep,
}

impl<'a> Json<'a> {
    /// Reads a text.
    pub(super) fn parse(text: &'a str) -> Result<Self, JsonError> {
        if u32::try_from(text.len()).is_err() {
            return Err(JsonError::Grammar);
        }
        let nodes = Vec::with_capacity(NODES);
        let mut scanner = Scanner { bytes: text.as_bytes(), at: 0, nodes, around: NONE, depth: 0 };
        scanner.document()?;
        Ok(Self { text, nodes: scanner.nodes })
    }

    /// Returns the text of a value, as typed.
    pub(super) fn text(&self, at: usize) -> &'a str {
        let range = self.nodes.get(at).map(|node| node.start as usize..node.end as usize);
        range.and_then(|range| self.text.get(range)).unwrap_or_default()
    }

    /// Returns the first byte of a value, which tells what it is.
    pub(super) fn kind(&self, at: usize) -> u8 {
        let start = self.nodes.get(at).map(|node| node.start as usize);
        start.and_then(|start| self.text.as_bytes().get(start)).copied().unwrap_or_default()
    }

    /// Returns the value of a member of an object; of several with one name the last, as most
    /// parsers do.
    pub(super) fn member(&self, at: usize, name: &str) -> Option<usize> {
        if self.kind(at) != b'{' {
            return None;
        }
        let mut children = self.children(at);
        let mut found = None;
        while let (Some(own), Some(value)) = (children.next(), children.next()) {
            if self.is_text(own, name) {
                found = Some(value);
            }
        }
        found
    }

    /// Returns the elements of an array; of anything else none.
    pub(super) fn elements(&self, at: usize) -> impl Iterator<Item = usize> {
        self.children(if self.kind(at) == b'[' { at } else { usize::MAX })
    }

    /// Returns the elements of an array, or the values of an object's members.
    pub(super) fn values(&self, at: usize) -> impl Iterator<Item = usize> {
        let step = if self.kind(at) == b'{' { 2 } else { 1 };
        self.children(at).skip(step - 1).step_by(step)
    }

    /// Returns a value and all that is inside of it, names of members too.
    pub(super) fn inside_of(&self, at: usize) -> Range<usize> {
        at..self.nodes.get(at).map_or(at, |node| node.after as usize)
    }

    /// Counts values, and the names of members.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns the text of a string value.
    pub(super) fn string(&self, at: usize) -> Cow<'a, str> {
        let typed = self.inside(at);
        if self.is_escaped(at) { Cow::Owned(unescape(typed)) } else { Cow::Borrowed(typed) }
    }

    /// Returns whether a string value stands for a text, which is never longer than what was typed.
    fn is_text(&self, at: usize, text: &str) -> bool {
        let typed = self.inside(at);
        if self.is_escaped(at) {
            typed.len() > text.len() && unescape(typed) == text
        } else {
            typed == text
        }
    }

    fn is_escaped(&self, at: usize) -> bool {
        self.nodes.get(at).is_some_and(|node| node.is_escaped)
    }

    /// The text of a string without its quotes.
    fn inside(&self, at: usize) -> &'a str {
        let text = self.text(at);
        text.get(1..text.len().saturating_sub(1)).unwrap_or_default()
    }

    /// The values right inside of one, the names of members among them.
    fn children(&self, at: usize) -> impl Iterator<Item = usize> {
        let behind = |at: usize| self.nodes.get(at).map_or(0, |node| node.after as usize);
        let (mut next, end) = (at.saturating_add(1), behind(at));
        std::iter::from_fn(move || {
            let child = (next < end).then_some(next)?;
            next = behind(child);
            Some(child)
        })
    }
}

/// Replaces the escapes of a string by what they stand for. Half of a surrogate pair, which JSON's
/// grammar has (RFC 8259 §8.2) and UTF-8 has not, becomes U+FFFD, as browsers send it.
pub(super) fn unescape(typed: &str) -> String {
    let mut text = String::with_capacity(typed.len());
    let mut rest = typed;
    while let Some((plain, escape)) = rest.split_once('\\') {
        text.push_str(plain);
        let (char, behind) = escaped(escape);
        text.push(char);
        rest = behind;
    }
    text.push_str(rest);
    text
}

/// Reads an escape behind its backslash.
fn escaped(escape: &str) -> (char, &str) {
    let mut chars = escape.chars();
    let char = match chars.next() {
        Some('b') => '\u{8}',
        Some('f') => '\u{c}',
        Some('n') => '\n',
        Some('r') => '\r',
        Some('t') => '\t',
        Some('u') => return code_point(escape),
        Some(itself) => itself,
        None => char::REPLACEMENT_CHARACTER,
    };
    (char, chars.as_str())
}

/// Reads `uXXXX`, and the second half of a pair behind it.
fn code_point(escape: &str) -> (char, &str) {
    let unit = |text: &str| u16::from_str_radix(text.get(1..5)?, 16).ok();
    let behind = escape.get(5..).unwrap_or_default();
    let second = behind.strip_prefix('\\').filter(|next| next.starts_with('u'));
    let units = unit(escape).into_iter().chain(second.and_then(unit));
    match char::decode_utf16(units).next() {
        Some(Ok(char)) if char.len_utf16() == 2 => (char, behind.get(6..).unwrap_or_default()),
        Some(Ok(char)) => (char, behind),
        _ => (char::REPLACEMENT_CHARACTER, behind),
    }
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<JsonNode>,
    /// The innermost array or object that is open.
    around: u32,
    depth: usize,
}

impl Scanner<'_> {
    fn document(&mut self) -> Result<(), JsonError> {
        self.value()?;
        while let Some(around) = self.nodes.get(self.around as usize) {
            let is_object = self.bytes.get(around.start as usize) == Some(&b'{');
            let is_empty = self.nodes.len() - 1 == self.around as usize;
            match (self.token()?, is_object) {
                (b'}', true) | (b']', false) => self.close(),
                (b',', _) if !is_empty => {
                    self.at += 1;
                    self.child(is_object)?;
                }
                _ if is_empty => self.child(is_object)?,
                _ => return Err(JsonError::Grammar),
            }
        }
        self.blanks();
        if self.at == self.bytes.len() { Ok(()) } else { Err(JsonError::Grammar) }
    }

    /// Reads a member or an element.
    fn child(&mut self, is_object: bool) -> Result<(), JsonError> {
        if is_object {
            if self.token()? != b'"' {
                return Err(JsonError::Grammar);
            }
            self.string()?;
            if self.token()? != b':' {
                return Err(JsonError::Grammar);
            }
            self.at += 1;
        }
        self.value()
    }

    /// Reads a value; of an array or object its beginning.
    fn value(&mut self) -> Result<(), JsonError> {
        match self.token()? {
            b'"' => self.string(),
            b'{' | b'[' => self.open(),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => Err(JsonError::Grammar),
        }
    }

    fn open(&mut self) -> Result<(), JsonError> {
        if self.depth == DEPTH_MAX {
            return Err(JsonError::TooDeep);
        }
        self.depth += 1;
        let (index, around) = (count(self.nodes.len()), self.around);
        self.nodes.push(JsonNode {
            start: count(self.at),
            end: around,
            after: NONE,
            is_escaped: false,
        });
        self.around = index;
        self.at += 1;
        Ok(())
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.at += 1;
        let (end, after) = (count(self.at), count(self.nodes.len()));
        if let Some(node) = self.nodes.get_mut(self.around as usize) {
            self.around = node.end;
            (node.end, node.after) = (end, after);
        }
    }

    /// Adds what has no values inside.
    fn leaf(&mut self, start: usize, is_escaped: bool) {
        let after = count(self.nodes.len() + 1);
        self.nodes.push(JsonNode { start: count(start), end: count(self.at), after, is_escaped });
    }

    fn string(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        let mut is_escaped = false;
        self.at += 1;
        loop {
            self.at += plain(self.bytes.get(self.at..).unwrap_or_default());
            match self.bytes.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    is_escaped = true;
                    self.escape()?;
                }
                _ => return Err(JsonError::Grammar),
            }
        }
        self.at += 1;
        self.leaf(start, is_escaped);
        Ok(())
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        self.at += match self.bytes.get(self.at + 1..).unwrap_or_default() {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'u', a, b, c, d, ..]
                if [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()) =>
            {
                6
            }
            _ => return Err(JsonError::Grammar),
        };
        Ok(())
    }

    fn number(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        self.skip(b"-");
        // No digit follows a zero at the beginning.
        if !self.skip(b"0") {
            self.digits()?;
        }
        if self.skip(b".") {
            self.digits()?;
        }
        if self.skip(b"eE") {
            self.skip(b"+-");
            self.digits()?;
        }
        self.leaf(start, false);
        Ok(())
    }

    /// Reads one digit and more.
    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at == start { Err(JsonError::Grammar) } else { Ok(()) }
    }

    /// Skips one of these, if it is there.
    fn skip(&mut self, any: &[u8]) -> bool {
        let is_there = self.bytes.get(self.at).is_some_and(|byte| any.contains(byte));
        self.at += usize::from(is_there);
        is_there
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), JsonError> {
        let start = self.at;
        if !self.bytes.get(start..).unwrap_or_default().starts_with(word) {
            return Err(JsonError::Grammar);
        }
        self.at += word.len();
        self.leaf(start, false);
        Ok(())
    }

    /// Returns the next byte that is no blank, which there must be.
    fn token(&mut self) -> Result<u8, JsonError> {
        self.blanks();
        self.bytes.get(self.at).copied().ok_or(JsonError::Grammar)
    }

    fn blanks(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }
}

/// Positions are less than the length of the text, and there are no more values than bytes.
fn count(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(NONE)
}

/// Counts the bytes before the first that ends a string, begins an escape, or may not stand in one;
/// eight at a time.
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = ONES << 7;
    // The top bit of each byte that is less than a small number; above the first such byte there
    // may be more.
    let less = |word: u64, than: u8| word.wrapping_sub(ONES * u64::from(than)) & !word & TOPS;
    let is = |word: u64, byte: u8| less(word ^ (ONES * u64::from(byte)), 1);
    let (words, rest) = bytes.as_chunks();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let stops = less(word, b' ') | is(word, b'"') | is(word, b'\\');
        if stops != 0 {
            return index * 8 + stops.trailing_zeros() as usize / 8;
        }
    }
    let stops = |byte: &u8| matches!(byte, b'"' | b'\\' | ..b' ');
    bytes.len() - rest.len() + rest.iter().position(stops).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    /// What `serde_json` makes of the grammar; it does not look at how deep this goes.
    fn is_json(text: &str) -> bool {
        serde_json::from_str::<IgnoredAny>(text).is_ok()
    }

    fn nested(open: &str, close: &str, times: usize) -> String {
        format!("{}1{}", open.repeat(times), close.repeat(times))
    }

    const JSON: [&str; 8] = [
        "{}",
        " 1",
        "null",
        "[ ]",
        r#""x""#,
        "\t{ \"a\" :\n{\"b\":[ ] , \"c\":-0.5e+7}\r}",
        r#"{"\ud800":1,"a":2}"#,
        r#"["\"\\\/\b\f\n\r\t\u00Ff", "12345678\"", 0, 10, -1, 0.0, 1E5, true, false, null]"#,
    ];

    /// A bar stands for a blank.
    const OTHER: &str = r#"
        { ] } hello nul {"a"} {"a":} {"a":1,} {,} [,1] [1,] [1|2] [} {] {"a"|1} {1:2} {"a":1}{"a":2} {}|x 01 1. .5 - +1
        1e 0x1 NaN 'a' "a "\x" "\u12g4" "\u12" "#;

    #[test]
    fn what_is_json_is_told_apart() {
        for text in JSON {
            assert!(is_json(text) && Json::parse(text).is_ok(), "{text}");
            for (end, _) in text.char_indices() {
                let cut = text.get(..end).expect("a boundary");
                assert_eq!(Json::parse(cut).is_ok(), is_json(cut), "{cut}");
            }
        }
        let other = OTHER.split_whitespace().map(|text| text.replace('|', " "));
        for text in
            other.chain(["", " ", "\"\n\"", "\"1234567\u{1}\"", "\u{feff}1"].map(str::to_owned))
        {
            assert!(!is_json(&text), "{text}");
            assert_eq!(Json::parse(&text).err(), Some(JsonError::Grammar), "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}"), (r#"[{"a":"#, "}]")] {
            let levels = open.matches(['[', '{']).count();
            assert!(Json::parse(&nested(open, close, DEPTH_MAX / levels)).is_ok());
            for times in [DEPTH_MAX / levels + 1, 1_000_000] {
                assert_eq!(
                    Json::parse(&nested(open, close, times)).err(),
                    Some(JsonError::TooDeep)
                );
            }
        }
        assert_eq!(Json::parse(&"[".repeat(DEPTH_MAX)).err(), Some(JsonError::Grammar));
        let wide = format!("[{}1]", format!("{},", nested("[", "]", DEPTH_MAX - 1)).repeat(1_000));
        assert!(Json::parse(&wide).is_ok(), "levels that are closed do not count");
    }

    #[test]
    fn halves_of_pairs_become_replacement_characters() {
        for (typed, meant) in [
            (r"\ud83d", "\u{fffd}"),
            (r"\ude00", "\u{fffd}"),
            (r"cut \ud83d", "cut \u{fffd}"),
            (r"\ud83d\ude00!", "😀!"),
            (r"\ud83d\ud83d\ude00", "\u{fffd}😀"),
            (r"\ude00\ud83d", "\u{fffd}\u{fffd}"),
            (r"\ud83d\n\ude00", "\u{fffd}\n\u{fffd}"),
            (r"\ud83dude00", "\u{fffd}ude00"),
            (r"\uD83D \u0041\u00e4", "\u{fffd} Aä"),
            (r"\ud83d\u0041", "\u{fffd}A"),
            (r#"\"\\\/\b\f\n\r\tu"#, "\"\\/\u{8}\u{c}\n\r\tu"),
        ] {
            assert_eq!(unescape(typed), meant, "{typed}");
            assert_eq!(Json::parse(&format!("\"{typed}\"")).expect("JSON").string(0), meant);
            let object = format!(r#"{{"{typed}":7}}"#);
            let json = Json::parse(&object).expect("JSON");
            assert_eq!(json.member(0, meant).map(|at| json.text(at)), Some("7"), "{typed}");
            assert_eq!(json.member(0, typed), None, "{typed}");
        }
    }

    /// Text that is near to JSON.
    fn almost_json() -> impl Strategy<Value = String> {
        let tokens = [
            "{", "}", "[", "]", ",", ":", " ", "\n", "\"", "\"a\"", "\"\\", "u0041", "\\ud83d",
            "\"\\n\"", "\"a\":", "true", "false", "null", "0", "12", "-", ".", "e", "E+", "ä",
            "\u{1}", "x",
        ];
        prop::collection::vec(prop::sample::select(tokens.to_vec()), 0..24)
            .prop_map(|tokens| tokens.concat())
    }

    fn values() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                prop::collection::btree_map("[a-c\"ä\\\\]{0,2}", inner, 0..5)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// Compares all that can be looked up.
    fn same(json: &Json<'_>, at: usize, value: &serde_json::Value) -> bool {
        use serde_json::Value;
        match value {
            Value::String(text) => json.string(at) == *text,
            Value::Array(items) => {
                json.elements(at).count() == items.len()
                    && items.iter().zip(json.elements(at)).all(|(item, at)| same(json, at, item))
            }
            Value::Object(members) => members
                .iter()
                .all(|(name, value)| json.member(at, name).is_some_and(|at| same(json, at, value))),
            other => serde_json::from_str::<Value>(json.text(at)).is_ok_and(|own| own == *other),
        }
    }

    proptest! {
        #[test]
        fn grammar_is_that_of_another_parser(text in almost_json()) {
            prop_assert_eq!(Json::parse(&text).is_ok(), is_json(&text));
        }

        #[test]
        fn values_are_those_of_another_parser(value in values(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = text.expect("JSON");
            let json = Json::parse(&text).expect("JSON");
            prop_assert!(same(&json, 0, &value));
            prop_assert_eq!(json.text(0), text.as_str());
        }

        #[test]
        fn eight_bytes_at_a_time_are_as_good_as_one(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let stop = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..b' '));
            prop_assert_eq!(plain(&bytes), stop.unwrap_or(bytes.len()));
        }
    }
}
