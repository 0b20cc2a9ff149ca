//! Filters of a path, `[?(@.price < 10 && @.tag == 'new')]`: RFC 9535 §2.3.5 without functions.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::super::json::Json;
use super::{Step, follow};

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
