//! Paths into a message's JSON: `JSONPath` (RFC 9535), of which API Gateway lets any stand behind
//! `request.body`.
//!
//! Rule: a look costs at most a walk through the values for each part of the path, whatever the
//! message. So a value is found once, where the RFC has it twice; and a filter sees no more than
//! the value it is asked about: names and positions below `@`, and constants. Functions are left
//! out.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::json::Json;

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Path {
    /// Names and positions: leads to one value. Empty: to the whole.
    One(Vec<Step>),
    /// May lead to several.
    Many(Vec<Segment>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Name(String),
    /// From the end if negative.
    Index(i64),
}

/// A part of a path that may lead to several values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Segment {
    /// Whether it looks at everything inside (`..`), not only right inside.
    pub(super) is_deep: bool,
    pub(super) selectors: Vec<Selector>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Selector {
    One(Step),
    All,
    Slice { start: Option<i64>, end: Option<i64>, step: i64 },
    Filter(Filter),
}

/// Where a path leads to.
#[derive(Debug)]
pub(super) enum Found {
    One(usize),
    /// At least one.
    Many(Vec<usize>),
}

impl Path {
    /// Follows the path from the whole text; `None` if it leads nowhere.
    pub(super) fn find(&self, json: &Json<'_>) -> Option<Found> {
        match self {
            Self::One(steps) => follow(steps, json, 0).map(Found::One),
            Self::Many(segments) => {
                let found =
                    segments.iter().fold(vec![0], |from, segment| segment.select(json, &from));
                (!found.is_empty()).then_some(Found::Many(found))
            }
        }
    }
}

/// Follows names and positions from a value.
fn follow(steps: &[Step], json: &Json<'_>, from: usize) -> Option<usize> {
    steps.iter().try_fold(from, |at, step| step.descend(json, at))
}

impl Step {
    fn descend(&self, json: &Json<'_>, at: usize) -> Option<usize> {
        match self {
            Self::Name(name) => json.member(at, name),
            Self::Index(index) => {
                let index =
                    from_end(*index, if *index < 0 { json.elements(at).count() } else { 0 });
                json.elements(at).nth(usize::try_from(index).ok()?)
            }
        }
    }
}

/// Turns a position that may be counted from the end into one from the beginning.
fn from_end(index: i64, len: usize) -> i64 {
    if index < 0 { index.saturating_add(i64::try_from(len).unwrap_or(i64::MAX)) } else { index }
}

impl Segment {
    /// Returns what this part leads to from any of `from`, each value once.
    fn select(&self, json: &Json<'_>, from: &[usize]) -> Vec<usize> {
        let mut found = Vec::new();
        if self.is_deep {
            for at in outermost(json, from) {
                for inside in json.inside_of(at) {
                    self.apply(json, inside, &mut found);
                }
            }
        } else {
            from.iter().for_each(|at| self.apply(json, *at, &mut found));
        }
        let mut is_new = vec![true; json.len()];
        found.retain(|at| is_new.get_mut(*at).is_some_and(std::mem::take));
        found
    }

    fn apply(&self, json: &Json<'_>, at: usize, found: &mut Vec<usize>) {
        for selector in &self.selectors {
            match selector {
                Selector::One(step) => found.extend(step.descend(json, at)),
                Selector::All => found.extend(json.values(at)),
                Selector::Filter(filter) => {
                    found.extend(json.values(at).filter(|value| filter.takes(json, *value)));
                }
                Selector::Slice { start, end, step } => {
                    let elements: Vec<usize> = json.elements(at).collect();
                    slice(&elements, *start, *end, *step, found);
                }
            }
        }
    }
}

/// Leaves out what lies inside of another: there the same would be found again.
fn outermost(json: &Json<'_>, from: &[usize]) -> Vec<usize> {
    let mut sorted = from.to_vec();
    sorted.sort_unstable();
    let mut end = 0;
    sorted.retain(|at| {
        let is_outside = *at >= end;
        if is_outside {
            end = json.inside_of(*at).end;
        }
        is_outside
    });
    sorted
}

/// RFC 9535 §2.3.4.2.
fn slice(
    elements: &[usize],
    start: Option<i64>,
    end: Option<i64>,
    step: i64,
    found: &mut Vec<usize>,
) {
    let count = elements.len();
    let len = i64::try_from(count).unwrap_or(i64::MAX);
    let place = |bound: Option<i64>, default: i64, (low, high): (i64, i64)| {
        bound.map_or(default, |bound| from_end(bound, count)).clamp(low, high)
    };
    let (mut at, last) = if step < 0 {
        (place(start, len - 1, (-1, len - 1)), place(end, -1, (-1, len - 1)))
    } else {
        (place(start, 0, (0, len)), place(end, len, (0, len)))
    };
    while (step > 0 && at < last) || (step < 0 && at > last) {
        found.extend(usize::try_from(at).ok().and_then(|at| elements.get(at)));
        at = at.saturating_add(step);
    }
}

/// What a value has to be.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Filter {
    /// There is something at the place.
    Exists(Vec<Step>),
    Compare(Operand, Operator, Operand),
    Not(Box<Filter>),
    All(Vec<Filter>),
    Any(Vec<Filter>),
}

/// What is compared.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    /// The value at a place below `@`.
    Value(Vec<Step>),
    Text(String),
    Number(f64),
    True,
    False,
    Null,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A value to compare.
#[derive(Debug, PartialEq)]
enum Comparable<'a> {
    /// Nothing is there.
    Nothing,
    Text(Cow<'a, str>),
    Number(f64),
    /// `true`, `false`, `null`, and arrays and objects, which are equal if they are typed alike.
    Other(&'a str),
}

impl Filter {
    /// Returns whether a value passes.
    pub(super) fn takes(&self, json: &Json<'_>, at: usize) -> bool {
        match self {
            Self::Exists(steps) => follow(steps, json, at).is_some(),
            Self::Compare(left, operator, right) => {
                operator.holds(&left.value(json, at), &right.value(json, at))
            }
            Self::Not(filter) => !filter.takes(json, at),
            Self::All(filters) => filters.iter().all(|filter| filter.takes(json, at)),
            Self::Any(filters) => filters.iter().any(|filter| filter.takes(json, at)),
        }
    }
}

impl Operand {
    fn value<'a>(&'a self, json: &Json<'a>, at: usize) -> Comparable<'a> {
        match self {
            Self::Text(text) => Comparable::Text(text.into()),
            Self::Number(number) => Comparable::Number(*number),
            Self::True => Comparable::Other("true"),
            Self::False => Comparable::Other("false"),
            Self::Null => Comparable::Other("null"),
            Self::Value(steps) => match follow(steps, json, at) {
                None => Comparable::Nothing,
                Some(at) => match json.kind(at) {
                    b'"' => Comparable::Text(json.string(at)),
                    b'-' | b'0'..=b'9' => {
                        json.text(at).parse().map_or(Comparable::Nothing, Comparable::Number)
                    }
                    _ => Comparable::Other(json.text(at)),
                },
            },
        }
    }
}

impl Operator {
    /// Only numbers and strings have an order, each among themselves.
    fn holds(self, left: &Comparable<'_>, right: &Comparable<'_>) -> bool {
        let order = match (left, right) {
            (Comparable::Text(left), Comparable::Text(right)) => Some(left.cmp(right)),
            (Comparable::Number(left), Comparable::Number(right)) => left.partial_cmp(right),
            (left, right) => (left == right).then_some(Ordering::Equal),
        };
        match self {
            Self::Equal => order == Some(Ordering::Equal),
            Self::NotEqual => order != Some(Ordering::Equal),
            Self::Less => order == Some(Ordering::Less),
            Self::LessOrEqual => order.is_some_and(Ordering::is_le),
            Self::Greater => order == Some(Ordering::Greater),
            Self::GreaterOrEqual => order.is_some_and(Ordering::is_ge),
        }
    }
}
