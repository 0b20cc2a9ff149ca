//! Paths into a message's JSON: `JSONPath` (RFC 9535), of which API Gateway lets any stand behind `request.body`.
//!
//! Rule: a look costs at most a walk through the values for each part of the path, whatever the message. So a value is found
//! once, where the RFC has it twice; and a filter sees no more than the value it is asked about: names and positions below `@`,
//! and constants. Functions are left out.

use super::json::Json;

mod filter;
mod parse;

use self::filter::Filter;
pub(super) use self::parse::path;

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
    is_deep: bool,
    selectors: Vec<Selector>,
}

#[derive(Clone, Debug, PartialEq)]
enum Selector {
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
                let found = segments.iter().fold(vec![0], |from, segment| segment.select(json, &from));
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
                let index = from_end(*index, if *index < 0 { json.elements(at).count() } else { 0 });
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
fn slice(elements: &[usize], start: Option<i64>, end: Option<i64>, step: i64, found: &mut Vec<usize>) {
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
