//! The payload of a message: a tag of the run, the number of the message, padding to the exact
//! size.
//!
//! Rule: only letters and digits, so that JSON does not change the size in either direction.

use std::time::SystemTime;

const TAG: usize = 8;
const NUMBER: usize = 8;
/// Below this there is no room for tag and number.
pub(crate) const MIN_BYTES: usize = TAG + NUMBER;

/// Builds and reads the payloads of one run.
#[derive(Clone, Debug)]
pub(crate) struct Payloads {
    /// Differs from run to run, so that a message of an earlier run is not mistaken for ours.
    tag: String,
    padding: String,
}

impl Payloads {
    /// Prepares payloads of exactly `bytes`.
    pub(crate) fn new(bytes: usize) -> Self {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let tag = (u64::from(std::process::id()) << 32)
            ^ u64::from(now.subsec_nanos())
            ^ (now.as_secs() << 30);
        Self::with_tag(format!("{:08x}", tag & 0xffff_ffff), bytes)
    }

    /// Prepares payloads of exactly `bytes` with the tag of another process' [`Self::tag`].
    pub(crate) fn with_tag(tag: String, bytes: usize) -> Self {
        Self { tag, padding: "x".repeat(bytes.saturating_sub(MIN_BYTES)) }
    }

    pub(crate) fn tag(&self) -> &str {
        &self.tag
    }

    /// Returns the payload of message `number`, which must be below 10⁸.
    pub(crate) fn build(&self, number: u32) -> String {
        format!("{}{number:08}{}", self.tag, self.padding)
    }

    /// Returns the number of a payload of this run, or nothing if a single byte differs from what
    /// was sent.
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
}
