//! Rules for groups: what differs for those whose names match a pattern.

use serde_json::{Value, json};

use super::reader::Reader;
use super::row::Kind;
use super::table::{group, node};
use crate::model::groups::{GroupRule, Groups};

/// Most rules: they are gone through for every message.
const RULES_MAX: usize = 1_000;

impl Kind for Groups {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        json!({ "type": "array", "maxItems": RULES_MAX })
    }
}

/// Takes `[[groups]]`.
pub(super) fn read(reader: &mut Reader<'_>) -> Groups {
    let mut rules: Vec<GroupRule> = Vec::new();
    for mut section in reader.list_of_sections(&node::groups) {
        let (place, before) =
            (reader.place_in(&section, group::pattern.name), reader.fault_count());
        let key = section.dotted(group::pattern.name);
        let pattern = reader.take_from(&mut section, &group::pattern);
        let replay = reader.take_from(&mut section, &group::replay);
        match pattern {
            Some(_) if rules.len() == RULES_MAX => {
                reader.fault_of(
                    &node::groups,
                    format!("more than {RULES_MAX} rules; write patterns"),
                );
                return Groups::default();
            }
            Some(pattern) => {
                if let Some(first) = rules.iter().find(|rule| rule.pattern.covers(&pattern)) {
                    let first = &first.pattern.0;
                    let message = format!(
                        "the rule above for {first:?} matches all of this first; put it below, or remove one"
                    );
                    reader.fault(place, &key, message);
                }
                rules.push(GroupRule { pattern, replay });
            }
            None if reader.fault_count() == before => {
                reader.fault(place, &key, "missing; for instance pattern = \"ticks-*\"");
            }
            None => {}
        }
        reader.finish(section);
    }
    reader.settle(&node::groups, Groups(rules.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::groups::{Pattern, Replay};

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern(pattern.into()).matches(name)
    }

    /// The same by trying everything.
    fn matches_slowly(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (None, Some(_)) => false,
            (Some((b'*', rest)), _) => {
                matches_slowly(rest, name)
                    || name.split_first().is_some_and(|(_, name)| matches_slowly(pattern, name))
            }
            (Some((one, rest)), Some((other, name))) => one == other && matches_slowly(rest, name),
            (Some(_), None) => false,
        }
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name) in
            [("ticks-*", "ticks-"), ("ticks-*", "ticks-eur"), ("*", "é"), ("a*b*a", "aba")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("ticks-*", "tick"), ("ticks", "ticks-eur"), ("a*a", "a"), ("*b*b*", "abc")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_covers_what_it_matches_all_of() {
        for (pattern, other) in
            [("*", "*"), ("a*", "a*b"), ("a*", "a"), ("*b*", "abba"), ("a*a", "a*b*a"), ("**", "*")]
        {
            assert!(Pattern(pattern.into()).covers(&Pattern(other.into())), "{pattern} {other}");
        }
        for (pattern, other) in [("a*", "*"), ("a", "a*"), ("a*b*a", "a*a"), ("*b", "*bc")] {
            assert!(!Pattern(pattern.into()).covers(&Pattern(other.into())), "{pattern} {other}");
        }
    }

    proptest! {
        /// Each rule is right about each name.
        #[test]
        fn where_none_is_kept_no_name_is(
            rules in prop::collection::vec(("[ab*]{1,4}", any::<bool>()), 0..4), names in "[ab*]{1,4}", name in "[ab]{1,6}",
        ) {
            let rule = |(pattern, is_on): (String, bool)| GroupRule {
                pattern: Pattern(pattern.into()),
                replay: if is_on { Replay::On } else { Replay::Off },
            };
            let groups = Groups(rules.into_iter().map(rule).collect());
            if groups.keep_none(&names) && matches(&names, &name) {
                prop_assert!(!groups.keeps(&name));
            }
        }

        #[test]
        fn what_a_covered_pattern_matches_is_matched(
            pattern in "[ab*]{1,6}", other in "[ab*]{1,6}", name in "[ab]{1,8}",
        ) {
            if Pattern(pattern.as_str().into()).covers(&Pattern(other.as_str().into())) {
                prop_assert!(!matches(&other, &name) || matches(&pattern, &name));
            }
        }

        #[test]
        fn patterns_match_what_trying_everything_finds(pattern in "[ab*]{1,8}", name in "[ab]{0,8}") {
            prop_assert_eq!(matches(&pattern, &name), matches_slowly(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
