//! By which a back end is told what a call is a part of: W3C Trace Context and Amazon's header say
//! the same in their own ways.
//!
//! Sources: W3C Trace Context, Level 1, §3.2; AWS X-Ray Developer Guide, "Tracing header". An id is
//! made as Amazon makes it, with the time in its first 32 bits, so that both can say it.

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;

/// The header of W3C Trace Context.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Amazon's.
pub(crate) const AMAZON: HeaderName = HeaderName::from_static("x-amzn-trace-id");

/// Longest header that is looked at, in bytes: load balancers add fields of their own to Amazon's.
const LONGEST: usize = 512;

/// A span, and the trace that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trail {
    pub(crate) trace: u128,
    pub(crate) span: u64,
    pub(crate) is_sampled: bool,
}

impl Trail {
    /// Begins a trace.
    pub(crate) fn begin(at: Timestamp) -> Self {
        let second = u128::from(at.as_second().unsigned_abs() & u64::from(u32::MAX));
        let trace = second << 96 | rand::random::<u128>() >> 32;
        Self { trace, span: new_span(), is_sampled: false }
    }

    /// Returns what a client says that its request is a part of, if that is well-formed; W3C's
    /// header is asked first.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let single = |name| {
            let mut values = headers.get_all(name).iter();
            let value = values.next().filter(|value| value.len() <= LONGEST)?;
            values.next().is_none().then_some(value)?.to_str().ok()
        };
        single(TRACEPARENT).and_then(of_traceparent).or_else(|| single(AMAZON).and_then(of_amazon))
    }

    /// Returns the value of `traceparent`.
    pub(crate) fn traceparent(&self) -> String {
        let Self { trace, span, is_sampled } = self;
        format!("00-{trace:032x}-{span:016x}-{:02x}", u8::from(*is_sampled))
    }

    /// Returns the value of `X-Amzn-Trace-Id`, and of what a function's runtime is told.
    pub(crate) fn amazon(&self) -> String {
        let Self { span, is_sampled, .. } = self;
        format!("{};Parent={span:016x};Sampled={}", self.root(), u8::from(*is_sampled))
    }

    /// Returns the trace as an event names it.
    pub(crate) fn root(&self) -> String {
        let (second, rest) = (self.trace >> 96, self.trace & (u128::MAX >> 32));
        format!("Root=1-{second:08x}-{rest:024x}")
    }

    /// Returns the value in a header's form.
    pub(crate) fn header(text: &str) -> HeaderValue {
        HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

fn new_span() -> u64 {
    rand::random_range(1..=u64::MAX)
}

/// `version-trace-span-flags`; later versions may have more behind that.
fn of_traceparent(text: &str) -> Option<Trail> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_whole = version != "00" || parts.next().is_none();
    if !is_whole || version == "ff" || hex(version, 2).is_none() {
        return None;
    }
    let span = u64::try_from(hex(span, 16)?).ok()?;
    let trail = Trail { trace: hex(trace, 32)?, span, is_sampled: hex(flags, 2)? & 1 == 1 };
    (trail.trace != 0 && trail.span != 0).then_some(trail)
}

/// `Root=1-8-24;Parent=16;Sampled=1`, in any order, and with fields that do not matter.
fn of_amazon(text: &str) -> Option<Trail> {
    let (mut trace, mut span, mut is_sampled) = (None, None, false);
    for (name, value) in text.split(';').filter_map(|field| field.trim().split_once('=')) {
        match name {
            "Root" => {
                let (second, rest) = value.strip_prefix("1-")?.split_once('-')?;
                trace = Some(hex(second, 8)? << 96 | hex(rest, 24)?);
            }
            "Parent" => span = Some(u64::try_from(hex(value, 16)?).ok()?),
            "Sampled" => is_sampled = value == "1",
            _ => {}
        }
    }
    let trace = trace.filter(|trace| *trace != 0)?;
    let span = span.filter(|span| *span != 0).unwrap_or_else(new_span);
    Some(Trail { trace, span, is_sampled })
}

/// Reads lower-case hexadecimal of `digits` digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (text.len() == digits && text.bytes().all(is_hex))
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";
    const ROOT: &str = "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736";

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn both_headers_say_the_same() {
        let traceparent = format!("00-{TRACE}-{SPAN}-01");
        let amazon = format!("{ROOT};Parent={SPAN};Sampled=1");
        for (name, value) in [
            (TRACEPARENT, traceparent.clone()),
            (TRACEPARENT, format!("01-{TRACE}-{SPAN}-09-more")),
            (AMAZON, amazon.clone()),
            (
                AMAZON,
                format!("Self=1-67891234-12456789abcdef012345678; Sampled=1;{ROOT};Parent={SPAN}"),
            ),
        ] {
            let trail = Trail::of(&headers(&[(name, &value)])).expect("well-formed");
            assert_eq!(
                (trail.traceparent(), trail.amazon()),
                (traceparent.clone(), amazon.clone())
            );
        }
        let both = [(AMAZON, ROOT), (TRACEPARENT, &*format!("00-{}-{SPAN}-00", "1".repeat(32)))];
        assert_eq!(
            Trail::of(&headers(&both)).map(|trail| trail.trace),
            u128::from_str_radix(&"1".repeat(32), 16).ok()
        );
    }

    #[test]
    fn what_is_not_well_formed_is_not_carried_on() {
        let zeros = (&"0".repeat(32), &"0".repeat(16));
        for (name, value) in [
            (TRACEPARENT, String::new()),
            (TRACEPARENT, format!("00-{TRACE}-{SPAN}")),
            (TRACEPARENT, format!("00-{TRACE}-{SPAN}-01-more")),
            (TRACEPARENT, format!("ff-{TRACE}-{SPAN}-01")),
            (TRACEPARENT, format!("0-{TRACE}-{SPAN}-01")),
            (TRACEPARENT, format!("00-{}-{SPAN}-01", TRACE.to_uppercase())),
            (TRACEPARENT, format!("00-+{}-{SPAN}-01", "7".repeat(31))),
            (TRACEPARENT, format!("00-{}-{SPAN}-01", zeros.0)),
            (TRACEPARENT, format!("00-{TRACE}-{}-01", zeros.1)),
            (TRACEPARENT, format!("01-{TRACE}-{SPAN}-01-{}", "x".repeat(LONGEST))),
            (AMAZON, "Root=1-4bf92f35".to_owned()),
            (AMAZON, format!("Root=2-4bf92f35-{}", "7".repeat(24))),
            (AMAZON, format!("{ROOT}7")),
            (AMAZON, format!("{ROOT};Parent=x")),
            (AMAZON, format!("Parent={SPAN};Sampled=1")),
        ] {
            assert_eq!(Trail::of(&headers(&[(name, &value)])), None, "{value}");
        }
        let twice = format!("00-{TRACE}-{SPAN}-01");
        assert_eq!(Trail::of(&headers(&[(TRACEPARENT, &twice), (TRACEPARENT, &twice)])), None);
    }

    #[test]
    fn a_trace_begins_with_its_second() {
        let at = Timestamp::from_second(0x5E1B_4151).expect("a time");
        let (one, other) = (Trail::begin(at), Trail::begin(at));
        assert!(one.root().starts_with("Root=1-5e1b4151-") && one.trace != other.trace);
        assert_eq!(of_amazon(&one.amazon()), Some(one));
        assert_eq!(of_traceparent(&one.traceparent()), Some(one));
    }

    proptest! {
        #[test]
        fn nothing_that_comes_is_too_much(text in "[ -~]{0,80}") {
            _ = (of_traceparent(&text), of_amazon(&text));
        }
    }
}
