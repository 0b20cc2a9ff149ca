//! Reads a path: `.a.b[0]['c']`, `[*]`, `..a`, `[-1]`, `[0:2]`, `[?(@.a == 'x')]`.

use super::json::unescape;
use super::path::{Filter, Operand, Operator, Path, Segment, Selector, Step};

/// Most parentheses and negations of a filter, one inside the other.
const DEPTH_MAX: usize = 16;

/// Reads a path as far as it goes; returns what is behind it.
pub(super) fn path(text: &str) -> Option<(Path, &str)> {
    let mut reader = Reader { rest: text };
    let mut segments = Vec::new();
    while let Some(segment) = reader.segment()? {
        segments.push(segment);
    }
    let steps: Option<Vec<Step>> = segments.iter().map(|segment| segment.step().cloned()).collect();
    Some((steps.map_or(Path::Many(segments), Path::One), reader.rest))
}

impl Segment {
    /// Returns the step that this is, if it leads to one value.
    fn step(&self) -> Option<&Step> {
        match self.selectors.as_slice() {
            [Selector::One(step)] if !self.is_deep => Some(step),
            _ => None,
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    /// Skips blanks and then `text`, if it is there.
    fn take(&mut self, text: &str) -> bool {
        match self.rest.trim_ascii_start().strip_prefix(text) {
            Some(rest) => self.rest = rest,
            None => return false,
        }
        true
    }

    fn need(&mut self, text: &str) -> Option<()> {
        self.take(text).then_some(())
    }

    /// Takes characters as long as they are of a kind.
    fn while_is(&mut self, is: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|char| !is(char)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at_checked(end).unwrap_or_default();
        self.rest = rest;
        taken
    }

    /// Reads the next part; the outer `None` is a fault, the inner one the end.
    fn segment(&mut self) -> Option<Option<Segment>> {
        let (is_deep, is_named) = match self.rest.as_bytes() {
            [b'.', b'.', b'[', ..] => (true, false),
            [b'.', b'.', ..] => (true, true),
            [b'.', ..] => (false, true),
            [b'[', ..] => (false, false),
            _ => return Some(None),
        };
        let dots = if is_deep { 2 } else { usize::from(is_named) };
        self.rest = self.rest.get(dots..)?;
        let selectors = if is_named { vec![self.name()?] } else { self.selectors()? };
        Some(Some(Segment { is_deep, selectors }))
    }

    /// Reads what stands behind a dot.
    fn name(&mut self) -> Option<Selector> {
        if self.rest.starts_with('*') {
            self.need("*")?;
            return Some(Selector::All);
        }
        let name = self.while_is(|char| char.is_alphanumeric() || matches!(char, '_' | '-'));
        (!name.is_empty()).then(|| Selector::One(Step::Name(name.to_owned())))
    }

    /// Reads `[…]`.
    fn selectors(&mut self) -> Option<Vec<Selector>> {
        self.need("[")?;
        let mut selectors = vec![self.selector()?];
        while self.take(",") {
            selectors.push(self.selector()?);
        }
        self.need("]")?;
        Some(selectors)
    }

    fn selector(&mut self) -> Option<Selector> {
        if self.take("*") {
            return Some(Selector::All);
        }
        if self.take("?") {
            return self.any(0).map(Selector::Filter);
        }
        if let Some(name) = self.quoted()? {
            return Some(Selector::One(Step::Name(name)));
        }
        let start = self.integer()?;
        if !self.take(":") {
            return start.map(Step::Index).map(Selector::One);
        }
        let end = self.integer()?;
        let step = if self.take(":") { self.integer()? } else { None };
        Some(Selector::Slice { start, end, step: step.unwrap_or(1) })
    }

    /// Reads a whole number, if one is there.
    fn integer(&mut self) -> Option<Option<i64>> {
        self.rest = self.rest.trim_ascii_start();
        match self.while_is(|char| char == '-' || char.is_ascii_digit()) {
            "" => Some(None),
            digits => digits.parse().ok().map(Some),
        }
    }

    /// Reads a text in quotes of either kind, if one is there.
    fn quoted(&mut self) -> Option<Option<String>> {
        let Some(quote) = ["'", "\""].into_iter().find(|quote| self.take(quote)) else {
            return Some(None);
        };
        let mut is_escaped = false;
        let end = self.rest.bytes().position(|byte| {
            let is_end = !is_escaped && quote.as_bytes() == [byte];
            is_escaped = !is_escaped && byte == b'\\';
            is_end
        })?;
        let (inside, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest.get(1..)?;
        Some(Some(unescape(inside)))
    }

    /// Reads a filter: conditions between `||`.
    fn any(&mut self, depth: usize) -> Option<Filter> {
        let mut filters = vec![self.all(depth)?];
        while self.take("||") {
            filters.push(self.all(depth)?);
        }
        if filters.len() == 1 { filters.pop() } else { Some(Filter::Any(filters)) }
    }

    /// Reads conditions between `&&`.
    fn all(&mut self, depth: usize) -> Option<Filter> {
        let mut filters = vec![self.condition(depth)?];
        while self.take("&&") {
            filters.push(self.condition(depth)?);
        }
        if filters.len() == 1 { filters.pop() } else { Some(Filter::All(filters)) }
    }

    fn condition(&mut self, depth: usize) -> Option<Filter> {
        if depth > DEPTH_MAX {
            return None;
        }
        if self.take("!") {
            return self.condition(depth + 1).map(Box::new).map(Filter::Not);
        }
        if self.take("(") {
            let inside = self.any(depth + 1)?;
            self.need(")")?;
            return Some(inside);
        }
        let left = self.operand()?;
        match (self.operator(), left) {
            (Some(operator), left) => Some(Filter::Compare(left, operator, self.operand()?)),
            (None, Operand::Value(steps)) => Some(Filter::Exists(steps)),
            (None, _) => None,
        }
    }

    fn operator(&mut self) -> Option<Operator> {
        // The longer first.
        let operators = [
            ("==", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ];
        operators.into_iter().find(|(text, _)| self.take(text)).map(|(_, operator)| operator)
    }

    fn operand(&mut self) -> Option<Operand> {
        if self.take("@") {
            let mut steps = Vec::new();
            while let Some(segment) = self.segment()? {
                steps.push(segment.step()?.clone());
            }
            return Some(Operand::Value(steps));
        }
        if let Some(text) = self.quoted()? {
            return Some(Operand::Text(text));
        }
        for (word, constant) in
            [("true", Operand::True), ("false", Operand::False), ("null", Operand::Null)]
        {
            if self.take(word) {
                return Some(constant);
            }
        }
        self.rest = self.rest.trim_ascii_start();
        let number = self
            .while_is(|char| matches!(char, '-' | '+' | '.' | 'e' | 'E') || char.is_ascii_digit());
        number.parse().ok().filter(|number: &f64| number.is_finite()).map(Operand::Number)
    }
}
