//! What a line of the access log is put together from: the variables of Amazon's access logs.
//!
//! Source: Amazon API Gateway Developer Guide, "Monitor WebSocket APIs with `CloudWatch` metrics
//! and access logs": the names, and `-` for what is absent.
//!
//! Rule: a value cannot end its line, nor a text that it stands in: quotes, backslashes and what
//! controls a terminal are escaped as in JSON.

use std::fmt::{self, Write as _};

use jiff::Timestamp;

use super::entry::{Entry, EntryKind};
use crate::model::call::Scene;

/// Longest format, in bytes; as on Amazon.
pub(crate) const LONGEST: usize = 3 << 10;

/// How variables begin.
const START: &str = "$context.";

/// What stands where there is no value.
const ABSENT: &str = "-";

/// See the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Format(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(Variable),
}

macro_rules! variables {
    ($($name:literal => $variant:ident),* $(,)?) => {
        /// A value of an event.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Variable { $($variant),* }

        /// All, by their names; some have two, as on Amazon.
        const VARIABLES: &[(&str, Variable)] = &[$(($name, Variable::$variant)),*, ("integrationLatency", Variable::IntegrationLatency)];
    };
}

variables! {
    "apiId" => ApiId,
    "authorizer.principalId" => Principal,
    "connectedAt" => ConnectedAt,
    "connectionId" => ConnectionId,
    "disconnectReason" => DisconnectReason,
    "disconnectStatusCode" => DisconnectStatusCode,
    "domainName" => DomainName,
    "error.message" => ErrorMessage,
    "error.messageString" => ErrorMessageString,
    "eventType" => EventType,
    "extendedRequestId" => ExtendedRequestId,
    "identity.sourceIp" => SourceIp,
    "identity.userAgent" => UserAgent,
    "integration.latency" => IntegrationLatency,
    "messageDirection" => MessageDirection,
    "messageId" => MessageId,
    "requestId" => RequestId,
    "requestTime" => RequestTime,
    "requestTimeEpoch" => RequestTimeEpoch,
    "routeKey" => RouteKey,
    "stage" => Stage,
    "status" => Status,
}

/// A moment in the common log format, such as `19/Feb/2024:07:11:42 +0000`.
pub(crate) fn clf(at: Timestamp) -> String {
    at.strftime("%d/%b/%Y:%H:%M:%S %z").to_string()
}

impl Format {
    /// Reads a format.
    ///
    /// # Errors
    /// What is wrong with it, and what to write.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > LONGEST {
            return Err(format!("it has {} bytes, and may have 1 to {LONGEST}", text.len()));
        }
        if text.chars().any(breaks) {
            return Err("it has to be one line, without control characters".to_owned());
        }
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some(at) = rest.find('$') {
            let (before, from) = rest.split_at(at);
            let (variable, length) = variable(from)?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Variable(variable));
            rest = from.get(length..).unwrap_or_default();
        }
        parts.push(Part::Text(rest.to_owned()));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Self(parts))
    }

    /// Returns the line of an event, with its end.
    pub(super) fn line(&self, entry: &Entry<'_>, scene: &Scene) -> String {
        let mut line = String::with_capacity(256);
        for part in &self.0 {
            match part {
                Part::Text(text) => line.push_str(text),
                Part::Variable(variable) => {
                    // Into a text nothing fails.
                    _ = variable.write(&mut line, entry, scene);
                }
            }
        }
        line.push('\n');
        line
    }
}

/// Returns the variable that a text begins with, and the length of its name.
fn variable(text: &str) -> Result<(Variable, usize), String> {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'.';
    let name = text.strip_prefix(START).unwrap_or_default();
    let name =
        name.get(..name.bytes().take_while(|byte| is_name(byte)).count()).unwrap_or_default();
    // A full stop may end a sentence.
    let name = name.trim_end_matches('.');
    let found = VARIABLES.iter().find(|(known, _)| *known == name);
    found.map(|(_, variable)| (*variable, START.len() + name.len())).ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        let known: Vec<_> = VARIABLES.iter().map(|(name, _)| *name).collect();
        format!("no variable begins {shown:?}; there are $context. and one of {}", known.join(", "))
    })
}

impl Variable {
    fn write(self, line: &mut String, entry: &Entry<'_>, scene: &Scene) -> fmt::Result {
        let Entry { who, end, .. } = entry;
        match self {
            Self::ApiId => put(line, Some(&scene.api_id)),
            Self::Principal => put(line, who.user),
            Self::ConnectedAt => {
                let at = who.connection.map(|(_, at)| at.as_millisecond());
                put_shown(line, at)
            }
            Self::ConnectionId => put_shown(line, who.connection.map(|(id, _)| id)),
            Self::DisconnectReason => put(line, entry.close.map(|(_, reason)| reason)),
            Self::DisconnectStatusCode => put_shown(line, entry.close.map(|(code, _)| code)),
            Self::DomainName => put(line, Some(&scene.domain_name)),
            Self::ErrorMessage => put(line, end.error),
            Self::ErrorMessageString => match end.error {
                Some(error) => {
                    line.push('"');
                    put(line, Some(error))?;
                    line.push('"');
                    Ok(())
                }
                None => put(line, None),
            },
            Self::EventType => put(line, Some(entry.kind.label())),
            Self::ExtendedRequestId | Self::RequestId => put_shown(line, Some(entry.request)),
            Self::SourceIp => put_shown(line, Some(who.source_ip)),
            Self::UserAgent => put(line, who.user_agent),
            Self::IntegrationLatency => {
                put_shown(line, end.latency.map(|latency| latency.as_millis()))
            }
            Self::MessageDirection => put(line, Some("IN")),
            Self::MessageId => put_shown(line, entry.message),
            Self::RequestTime => put(line, Some(&clf(entry.at))),
            Self::RequestTimeEpoch => put_shown(line, Some(entry.at.as_millisecond())),
            Self::RouteKey => put(line, entry.route),
            Self::Stage => put(line, Some(&scene.stage)),
            Self::Status => put_shown(line, Some(end.status)),
        }
    }
}

impl EntryKind {
    fn label(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Message => "MESSAGE",
            Self::Disconnect => "DISCONNECT",
        }
    }
}

/// Adds what has no character that is escaped.
fn put_shown(line: &mut String, value: Option<impl fmt::Display>) -> fmt::Result {
    match value {
        Some(value) => write!(line, "{value}"),
        None => line.write_str(ABSENT),
    }
}

fn put(line: &mut String, value: Option<&str>) -> fmt::Result {
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return line.write_str(ABSENT);
    };
    for letter in value.chars() {
        match letter {
            '"' | '\\' => {
                line.push('\\');
                line.push(letter);
            }
            // All of them are in the first plane.
            letter if breaks(letter) => write!(line, "\\u{:04x}", u32::from(letter))?,
            letter => line.push(letter),
        }
    }
    Ok(())
}

/// Returns whether a letter may end a line somewhere, control a terminal, or turn the direction of
/// what follows.
fn breaks(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::entry::{EntryEnd, Who};
    use super::*;
    use crate::model::id;

    fn line(format: &str, user_agent: &str) -> String {
        let scene = Scene {
            stage: "beta".to_owned(),
            domain_name: "gate:8443".to_owned(),
            api_id: "gatecast".to_owned(),
        };
        let entry = Entry {
            kind: EntryKind::Connect,
            route: Some("$connect"),
            request: id::RequestId::mint(),
            message: None,
            who: Who {
                connection: None,
                source_ip: "192.0.2.1".parse().expect("an address"),
                user_agent: Some(user_agent),
                user: None,
            },
            at: "2024-02-19T07:11:42Z".parse().expect("a time"),
            end: EntryEnd { status: 403, error: Some("Forbidden"), latency: None },
            close: None,
        };
        Format::parse(format).expect(format).line(&entry, &scene)
    }

    #[test]
    fn variables_are_put_in_and_what_is_absent_is_a_dash() {
        let format = "$context.identity.sourceIp - [$context.requestTime] \"$context.eventType $context.routeKey $context.connectionId\" \
            $context.status $context.integrationLatency $context.integration.latency $context.error.messageString $context.stage.";
        assert_eq!(
            line(format, "x"),
            "192.0.2.1 - [19/Feb/2024:07:11:42 +0000] \"CONNECT $connect -\" 403 - - \"Forbidden\" beta.\n"
        );
    }

    #[test]
    fn a_format_that_cannot_be_meant_is_refused() {
        for (format, part) in [
            ("", "1 to 3072"),
            ("$context.requestID", "requestId"),
            ("$context.", "connectionId"),
            ("$context.identity", "identity.sourceIp"),
            ("${context.requestId}", "no variable begins"),
            ("$request.body.a", "no variable begins"),
            ("costs 5$", "no variable begins"),
            ("$context.status\n$context.stage", "one line"),
            ("\u{2028}", "one line"),
        ] {
            let fault = Format::parse(format).expect_err(format);
            assert!(fault.contains(part), "{format}: {fault}");
        }
        assert!(Format::parse(&"x".repeat(LONGEST + 1)).is_err());
        for (name, _) in VARIABLES {
            assert!(Format::parse(&format!("$context.{name}")).is_ok(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_value_forges_a_line_or_leaves_its_text(agent in "\\PC{0,20}[\"\\\\\r\n\u{1b}\u{85}\u{2028}\u{202e}]{0,4}\\PC{0,20}") {
            let line = line(r#"{"agent":"$context.identity.userAgent","status":$context.status}"#, &agent);
            prop_assert!(line.trim_end_matches('\n').chars().all(|letter| !breaks(letter)));
            prop_assert_eq!(line.matches('\n').count(), 1);
            let read: Value = serde_json::from_str(&line).expect("JSON");
            let expected = if agent.is_empty() { "-" } else { &agent };
            prop_assert_eq!(&read["agent"], &Value::from(expected));
            prop_assert_eq!(&read["status"], &Value::from(403));
        }
    }
}
