//! What travels in a message: a tag of the run, the number of the message, padding to the exact size.
//!
//! Rule: only letters and digits, so that no JSON escaping can change the size on either leg.

use std::time::SystemTime;

use anyhow::{Result, ensure};

const TAG: usize = 8;
const NUMBER: usize = 8;
/// Below this there is no room for tag and number.
pub(crate) const MIN_BYTES: usize = TAG + NUMBER;

/// Builds and reads the payloads of one run.
#[derive(Debug)]
pub(crate) struct Payloads {
    /// Differs from run to run, so that a message of an earlier run is not taken for ours.
    tag: String,
    padding: String,
}

impl Payloads {
    /// Prepares payloads of exactly `bytes`.
    pub(crate) fn new(bytes: usize) -> Self {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let tag =
            (u64::from(std::process::id()) << 32) ^ u64::from(now.subsec_nanos()) ^ (now.as_secs() << 30);
        Self {
            tag: format!("{:08x}", tag & 0xffff_ffff),
            padding: "x".repeat(bytes.saturating_sub(MIN_BYTES)),
        }
    }

    /// Returns the payload of message `number`, which must be below 10⁸.
    pub(crate) fn build(&self, number: u32) -> String {
        format!("{}{number:08}{}", self.tag, self.padding)
    }

    /// Returns the number of a payload of this run, or nothing if a single byte differs from what was sent.
    pub(crate) fn number(&self, payload: &[u8]) -> Option<u32> {
        let rest = payload.strip_prefix(self.tag.as_bytes())?;
        let (digits, padding) = rest.split_first_chunk::<NUMBER>()?;
        if padding != self.padding.as_bytes() {
            return None;
        }
        digits.iter().try_fold(0, |number, digit| match digit {
            b'0'..=b'9' => Some(number * 10 + u32::from(digit - b'0')),
            _ => None,
        })
    }
}

/// A message a client sends, with `{payload}` and perhaps `{group}` in it.
#[derive(Debug)]
pub(crate) struct Template(String);

impl Template {
    /// Checks that `text` has a place for the payload.
    ///
    /// # Errors
    /// It has none.
    pub(crate) fn new(text: &str) -> Result<Self> {
        ensure!(text.contains("{payload}"), "template `{text}` has no {{payload}}");
        Ok(Self(text.to_owned()))
    }

    pub(crate) fn fill(&self, group: usize, payload: &str) -> String {
        with_group(&self.0, group).replace("{payload}", payload)
    }
}

/// Puts the name of a group in the place of `{group}`.
pub(crate) fn with_group(text: &str, group: usize) -> String {
    text.replace("{group}", &format!("g{group}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_have_the_exact_size_and_give_their_number_back() {
        for bytes in [MIN_BYTES, 128, 16_384] {
            let payloads = Payloads::new(bytes);
            let payload = payloads.build(4_711);
            assert_eq!(payload.len(), bytes);
            assert_eq!(payloads.number(payload.as_bytes()), Some(4_711));
        }
    }

    #[test]
    fn a_payload_that_was_changed_is_not_read() {
        let payloads = Payloads::new(64);
        let payload = payloads.build(7);
        assert_eq!(payloads.number(&payload.as_bytes()[1..]), None);
        assert_eq!(payloads.number(&payload.as_bytes()[..63]), None);
        assert_eq!(payloads.number(payload.replacen('0', "z", 20).as_bytes()), None);
        assert_eq!(payloads.number(format!("{payload}x").as_bytes()), None);
    }

    #[test]
    fn templates_are_filled_and_must_have_a_place() {
        let template = Template::new(r#"{"group":"{group}","data":"{payload}"}"#).unwrap();
        assert_eq!(template.fill(3, "abc"), r#"{"group":"g3","data":"abc"}"#);
        assert!(Template::new("nothing").is_err());
    }
}
