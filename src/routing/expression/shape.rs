//! What can be said of an expression before there is a message.

use super::{Expression, Form, TemplatePart, Variable};

impl Expression {
    /// Returns the text that it always gives, if it is one.
    pub(crate) fn constant(&self) -> Option<&str> {
        match &self.0 {
            Form::Composite(parts) => match parts.as_slice() {
                [] => Some(""),
                [TemplatePart::Literal(text)] => Some(text),
                _ => None,
            },
            Form::Variable(_) => None,
        }
    }

    /// Returns all that it may give, with `*` for each part that a message or a connection decides.
    pub(crate) fn pattern(&self) -> String {
        let Form::Composite(parts) = &self.0 else { return "*".to_owned() };
        let piece = |part: &TemplatePart| match part {
            TemplatePart::Literal(text) => text.clone(),
            TemplatePart::Variable(_) => "*".to_owned(),
        };
        parts.iter().map(piece).collect()
    }

    /// Returns whether it takes anything of the message.
    pub(crate) fn takes_body(&self) -> bool {
        self.variables().any(|variable| !matches!(variable, Variable::Context(_)))
    }

    /// Returns whether it takes a part of a message, which has to be JSON then.
    pub(crate) fn takes_from_body(&self) -> bool {
        self.variables().any(|variable| matches!(variable, Variable::Body(_)))
    }

    /// Returns whether there may be a message for which it gives `text`.
    pub(crate) fn may_be(&self, text: &str) -> bool {
        let Form::Composite(parts) = &self.0 else { return true };
        let (mut rest, mut is_open) = (text, false);
        let (last, parts) = match parts.split_last() {
            Some((TemplatePart::Literal(last), parts)) => (last.as_str(), parts),
            _ => ("", parts.as_slice()),
        };
        for part in parts {
            // The earliest place of each literal leaves the most room for the next.
            match part {
                TemplatePart::Variable(_) => is_open = true,
                TemplatePart::Literal(literal) => {
                    let at = if is_open {
                        rest.find(literal)
                    } else {
                        rest.starts_with(literal).then_some(0)
                    };
                    let Some(after) = at.and_then(|at| rest.get(at + literal.len()..)) else {
                        return false;
                    };
                    (rest, is_open) = (after, false);
                }
            }
        }
        if is_open { rest.ends_with(last) } else { rest == last }
    }

    fn variables(&self) -> impl Iterator<Item = &Variable> {
        let (one, parts): (_, &[TemplatePart]) = match &self.0 {
            Form::Variable(variable) => (Some(variable), &[]),
            Form::Composite(parts) => (None, parts),
        };
        one.into_iter().chain(parts.iter().filter_map(|part| match part {
            TemplatePart::Variable(variable) => Some(variable),
            TemplatePart::Literal(_) => None,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Expression {
        Expression::parse(text).expect(text)
    }

    #[test]
    fn it_is_known_which_texts_an_expression_may_give() {
        for (expression, text) in [
            ("$request.body.action", "anything"),
            ("ping", "ping"),
            ("${request.body.a}", "anything"),
            ("${request.body.a}/${request.body.b}", "chat/send"),
            ("${request.body.a}/${request.body.b}", "/"),
            ("v1.${request.body.a}.x", "v1.a.x.x"),
            ("v1${request.body.a}", "v1"),
        ] {
            assert!(parse(expression).may_be(text), "{expression} {text}");
        }
        for (expression, text) in [
            ("ping", "pong"),
            ("\\$default", "ping"),
            ("${request.body.a}/${request.body.b}", "chat"),
            ("v1.${request.body.a}", "v2.a"),
            ("v1.${request.body.a}.x", "v1.x"),
            ("${request.body.a}x", "xy"),
        ] {
            assert!(!parse(expression).may_be(text), "{expression} {text}");
        }
    }

    #[test]
    fn it_is_known_what_an_expression_takes() {
        let of = |text| {
            (
                parse(text).constant().is_some(),
                parse(text).takes_body(),
                parse(text).takes_from_body(),
            )
        };
        assert_eq!(of("ping"), (true, false, false));
        assert_eq!(of("$request.body"), (false, true, false));
        assert_eq!(of("said ${request.body.a}"), (false, true, true));
        assert_eq!(of("${context.connectionId} left"), (false, false, false));
    }
}
