//! Passes over what is said in RESP, byte by byte as it comes, and knows where each value ends;
//! holds no more of it than a line.
//!
//! Pure. Rule: what this lets pass the driver can read, and what is too long, too deep or no RESP
//! at all is known with the first byte that says so: a length counts in full before anything of
//! that length has come.

/// Counted for every value besides its bytes: about what the driver needs to hold one.
const VALUE: usize = 64;
/// Longest line: an error, or a number.
const LINE: usize = 16 << 10;
/// Deepest nesting. No answer to what is asked of Redis passes 4; the driver reads each level by
/// recursion.
const DEPTH: usize = 8;
/// Longest name of a kind of push message.
const KIND: usize = 16;
/// First bytes of values.
const FIRST: &[u8] = b"+-:$*_#,(!=%~>|";
/// Bytes that are shown of what is no RESP.
const SHOWN: usize = 40;

/// Why what comes cannot be what Redis says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Breach {
    /// What came, escaped.
    #[error("what answers does not speak as Redis does: it says \"{0}\"")]
    Foreign(String),
    #[error("a reply is longer than any that was asked for, more than {0} bytes")]
    Long(usize),
    #[error("a reply is nested more than {DEPTH} levels deep")]
    Deep,
    #[error("a reply comes that nobody has asked for")]
    Unasked,
    #[error("what answers does not speak TLS")]
    Unencrypted,
    /// The command.
    #[error("the reply to {0} is not one to it")]
    Unfit(&'static str),
}

/// A value that has been passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Passed {
    /// What it weighs: its bytes, and this many for each value in it.
    pub(super) weight: usize,
    /// The kind of a push message.
    pub(super) push: Option<Vec<u8>>,
}

/// See the [module documentation](self).
#[derive(Debug, Default)]
pub(super) struct Scanner {
    place: Place,
    /// How many values are missing at each level.
    missing: Vec<usize>,
    weight: usize,
    line: Vec<u8>,
    /// Whether the present string lacks the colon without which it cannot be read.
    lacks_colon: bool,
    is_push: bool,
    kind: Option<Vec<u8>>,
}

/// Where in a value the next byte is.
#[derive(Clone, Copy, Debug, Default)]
enum Place {
    /// At its first byte.
    #[default]
    Start,
    /// In its first line; the first byte is this.
    Line(u8),
    /// In a string, of which so much is missing, its end included.
    Text(usize),
}

impl Scanner {
    /// Passes over the rest of one value, which may weigh so much; returns how many bytes that are,
    /// and the value if this is all of it.
    ///
    /// # Errors
    /// What comes is not RESP.
    pub(super) fn pass(
        &mut self,
        bytes: &[u8],
        most: usize,
    ) -> Result<(usize, Option<Passed>), Breach> {
        let mut rest = bytes;
        while let Some((first, behind)) = rest.split_first() {
            let is_whole = match self.place {
                Place::Start if !FIRST.contains(first) => return Err(foreign(rest)),
                Place::Start => {
                    (self.place, rest) = (Place::Line(*first), behind);
                    self.line.clear();
                    self.begin(*first, most)?;
                    false
                }
                Place::Line(first) => {
                    let end = rest.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
                    let (part, behind) =
                        rest.split_at_checked(end.unwrap_or(rest.len())).unwrap_or((rest, &[]));
                    rest = behind;
                    self.line.extend_from_slice(part);
                    self.weigh(part.len(), most)?;
                    if self.line.len() > LINE {
                        return Err(self.foreign(first));
                    }
                    end.is_some() && self.on_line(first, most)?
                }
                Place::Text(missing) => {
                    let (part, behind) = rest.split_at_checked(missing).unwrap_or((rest, &[]));
                    rest = behind;
                    self.on_text(part, missing - part.len())?
                }
            };
            if is_whole && self.end() {
                let push = self.is_push.then(|| self.kind.take().unwrap_or_default());
                let passed = Passed { weight: std::mem::take(&mut self.weight), push };
                return Ok((bytes.len() - rest.len(), Some(passed)));
            }
        }
        Ok((bytes.len(), None))
    }

    /// A value begins.
    fn begin(&mut self, first: u8, most: usize) -> Result<(), Breach> {
        if self.missing.is_empty() {
            (self.is_push, self.kind) = (first == b'>', None);
            self.weigh(VALUE, most)?;
        } else if first == b'>' || self.names_kind() && !matches!(first, b'+' | b'$') {
            return Err(self.foreign(first));
        }
        Ok(())
    }

    /// Returns whether the present value says of which kind the push message is.
    fn names_kind(&self) -> bool {
        self.is_push && self.kind.is_none() && self.missing.len() == 1
    }

    /// The first line of a value is there; returns whether that is all of it.
    fn on_line(&mut self, first: u8, most: usize) -> Result<bool, Breach> {
        let Some(line) = self.line.strip_suffix(b"\r\n").and_then(|line| str::from_utf8(line).ok())
        else {
            return Err(self.foreign(first));
        };
        let length = line.parse::<usize>().ok();
        let is_null = line == "-1";
        let is_right = match first {
            b'+' | b'-' | b'(' => !line.contains('\r'),
            b':' => line.parse::<i64>().is_ok(),
            b',' => line.parse::<f64>().is_ok(),
            b'#' => matches!(line, "t" | "f"),
            b'_' => line.is_empty(),
            b'$' | b'*' | b'~' => length.is_some() || is_null,
            b'!' | b'=' | b'%' | b'|' => length.is_some(),
            _ => length.is_some_and(|length| length > 0),
        };
        if !is_right {
            return Err(self.foreign(first));
        }
        if self.names_kind() && first == b'+' {
            self.kind = Some(line.into());
        }
        let Some(length) = length else { return Ok(true) };
        match first {
            b'$' | b'!' | b'=' => {
                self.weigh(length, most)?;
                self.line.clear();
                self.lacks_colon = first == b'=';
                self.place = Place::Text(length.saturating_add(2));
                return Ok(false);
            }
            b'*' | b'~' | b'>' | b'%' | b'|' => {
                let count = match first {
                    b'%' => length.saturating_mul(2),
                    // And the value that it says something of.
                    b'|' => length.saturating_mul(2).saturating_add(1),
                    _ => length,
                };
                self.weigh(count.saturating_mul(VALUE), most)?;
                if count > 0 {
                    if self.missing.len() == DEPTH {
                        return Err(Breach::Deep);
                    }
                    self.missing.push(count);
                    self.place = Place::Start;
                    return Ok(false);
                }
            }
            _ => {}
        }
        Ok(true)
    }

    /// More of a string is there; returns whether that is all of it.
    fn on_text(&mut self, part: &[u8], missing: usize) -> Result<bool, Breach> {
        self.place = Place::Text(missing);
        self.lacks_colon = self.lacks_colon && !part.contains(&b':');
        // Of others the end is enough.
        let kept = if self.names_kind() {
            part
        } else {
            part.get(part.len().saturating_sub(2)..).unwrap_or(part)
        };
        self.line.extend_from_slice(kept);
        if self.names_kind() && self.line.len() + missing > KIND + 2 {
            return Err(self.foreign(b'>'));
        }
        if missing > 0 {
            let old = if self.names_kind() { 0 } else { self.line.len().saturating_sub(2) };
            self.line.drain(..old);
            return Ok(false);
        }
        let text = self.line.strip_suffix(b"\r\n").filter(|_| !self.lacks_colon);
        let Some(text) = text else { return Err(self.foreign(b'$')) };
        if self.names_kind() {
            self.kind = Some(text.to_vec()).filter(|kind| kind.is_ascii());
            return if self.kind.is_some() { Ok(true) } else { Err(self.foreign(b'>')) };
        }
        Ok(true)
    }

    /// A value is whole; returns whether it is not a part of another that is not.
    fn end(&mut self) -> bool {
        self.place = Place::Start;
        while let Some(missing) = self.missing.last_mut() {
            *missing -= 1;
            if *missing > 0 {
                return false;
            }
            self.missing.pop();
        }
        true
    }

    fn weigh(&mut self, weight: usize, most: usize) -> Result<(), Breach> {
        self.weight = self.weight.saturating_add(weight);
        if self.weight > most { Err(Breach::Long(most)) } else { Ok(()) }
    }

    /// Returns whether a value has begun.
    pub(super) fn is_within(&self) -> bool {
        !self.missing.is_empty() || !matches!(self.place, Place::Start)
    }

    fn foreign(&self, first: u8) -> Breach {
        foreign(&[&[first], self.line.as_slice()].concat())
    }
}

fn foreign(said: &[u8]) -> Breach {
    Breach::Foreign(said.get(..SHOWN).unwrap_or(said).escape_ascii().to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redis::parse_redis_value;

    use super::*;

    const MOST: usize = 100_000;

    /// Passes over what comes in parts of that many bytes; returns what each value weighs and its
    /// kind.
    fn passed(mut bytes: &[u8], part: usize) -> Result<Vec<Passed>, Breach> {
        let (mut scanner, mut passed) = (Scanner::default(), Vec::new());
        while !bytes.is_empty() {
            let (taken, whole) = scanner.pass(&bytes[..part.min(bytes.len())], MOST)?;
            bytes = &bytes[taken..];
            passed.extend(whole);
        }
        assert!(scanner.line.capacity() <= 2 * (LINE + bytes.len().max(part)));
        Ok(passed)
    }

    const VALUES: &[&str] = &[
        "+OK\r\n",
        "-ERR no\r\n",
        ":-7\r\n",
        "$-1\r\n",
        "*-1\r\n",
        "*0\r\n",
        "$0\r\n\r\n",
        "$5\r\na\r\nb\n\r\n",
        "*2\r\n:1\r\n*1\r\n$1\r\nx\r\n",
        "%1\r\n+a\r\n~1\r\n_\r\n",
        "|1\r\n+a\r\n:1\r\n+b\r\n",
        ",1.5\r\n",
        ",inf\r\n",
        "#t\r\n",
        "(123456789012345678901234567890\r\n",
        "!5\r\nERR x\r\n",
        "=5\r\ntxt:x\r\n",
        ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$3\r\nb\r\n\r\n",
        ">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n",
    ];

    #[test]
    fn whatever_redis_says_passes_however_it_is_cut() {
        let all = VALUES.concat();
        for part in [1, 2, 3, 7, all.len()] {
            let passed = passed(all.as_bytes(), part).expect("values");
            assert_eq!(passed.len(), VALUES.len(), "{part}");
            let kinds: Vec<_> = passed.iter().filter_map(|passed| passed.push.as_deref()).collect();
            assert_eq!(kinds, [&b"message"[..], b"invalidate"]);
        }
        let weights: Vec<_> =
            passed(all.as_bytes(), 1).expect("values").iter().map(|p| p.weight).collect();
        assert_eq!(
            weights,
            passed(all.as_bytes(), all.len())
                .expect("values")
                .iter()
                .map(|p| p.weight)
                .collect::<Vec<_>>()
        );
        assert_eq!((weights[0], weights[7]), (VALUE + 4, VALUE + 3 + 5));
        assert_eq!(weights[8], 4 * VALUE + 3 + 3 + 3 + 3 + 1);
    }

    #[test]
    fn what_is_too_long_or_too_deep_is_known_before_it_comes() {
        for said in [
            "$9999999999\r\n",
            "*1000000000\r\n",
            "%999999999\r\n",
            "~100000\r\n",
            "$18446744073709551615\r\n",
        ] {
            assert_eq!(passed(said.as_bytes(), 1), Err(Breach::Long(MOST)), "{said}");
        }
        assert_eq!(
            passed("*1000\r\n".repeat(3).as_bytes(), 5),
            Err(Breach::Long(MOST)),
            "all that is promised counts"
        );
        assert_eq!(passed("*1\r\n".repeat(100_000).as_bytes(), 1_000), Err(Breach::Deep));
        assert!(passed(format!("{}:1\r\n", "*1\r\n".repeat(DEPTH)).as_bytes(), 1_000).is_ok());
        let endless = format!("+{}", "x".repeat(2 * LINE));
        assert!(
            matches!(passed(endless.as_bytes(), 1_000), Err(Breach::Foreign(said)) if said.len() == SHOWN)
        );
    }

    #[test]
    fn what_is_no_reply_is_shown() {
        let foreign = |said: &str| Err(Breach::Foreign(said.to_owned()));
        assert_eq!(
            passed(b"HTTP/1.1 400 Bad Request\r\n\r\n", 100),
            foreign("HTTP/1.1 400 Bad Request\\r\\n\\r\\n")
        );
        for said in [
            ":x\r\n",
            "$x\r\n",
            "$-2\r\n",
            "*-7\r\n",
            "%-1\r\n",
            "!-1\r\n",
            ">0\r\n",
            ">-1\r\n",
            "#x\r\n",
            ",x\r\n",
            "_x\r\n",
            "$?\r\n",
            "*?\r\n",
            "+a\rb\r\n",
            "+a\n",
            "\0\r\n",
            "$1\r\nxyz",
            ">1\r\n:1\r\n",
            ">1\r\n$40\r\n",
            "*1\r\n>1\r\n",
            "$ 1\r\n",
            ":99999999999999999999\r\n",
        ] {
            let longer = format!("{said}{}", "x".repeat(40));
            assert!(matches!(passed(longer.as_bytes(), 3), Err(Breach::Foreign(_))), "{said:?}");
        }
        assert!(matches!(passed(b"+\xff\xfe\r\n", 9), Err(Breach::Foreign(_))));
    }

    proptest! {
        /// What passes whole the driver reads, and what the driver reads of one value is no more.
        #[test]
        fn what_passes_can_be_read(parts in prop::collection::vec(prop::sample::select(VALUES), 1..5), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = parts.concat().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let mut scanner = Scanner::default();
            if let Ok((taken, Some(_))) = scanner.pass(&bytes, MOST) {
                prop_assert!(parse_redis_value(&bytes[..taken]).is_ok());
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(prop::sample::select(b"*$>%|~:+-_#,!=(0123\r\nx".as_slice()), 0..60), part in 1..9_usize) {
            let whole = passed(&bytes, bytes.len().max(1));
            prop_assert_eq!(whole.is_ok(), passed(&bytes, part).is_ok());
        }
    }
}
