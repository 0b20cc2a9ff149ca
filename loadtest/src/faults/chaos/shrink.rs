//! Makes a plan that breaks a promise shorter, by leaving out events that it does not need.

use crate::faults::plan::Plan;

/// Tries the plan without each of its events, the last first, and keeps what still fails; `tries`
/// times at most.
pub(crate) fn shrink(
    plan: &Plan,
    tries: usize,
    mut still_fails: impl FnMut(&Plan) -> bool,
) -> Plan {
    let (mut shortest, mut left) = (plan.clone(), tries);
    let mut number = shortest.events.len();
    while number > 0 && left > 0 && shortest.events.len() > 1 {
        number -= 1;
        left -= 1;
        let shorter = shortest.without(number);
        if still_fails(&shorter) {
            shortest = shorter;
            // Only the removed event may have needed those before it.
            number = shortest.events.len();
        }
    }
    shortest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Plan {
        text.parse().unwrap()
    }

    #[test]
    fn only_what_is_needed_is_left() {
        let long = plan("kill_node@1s redis_pause@2s+1s redis_full@3s+1s redis_tear@4s+1s");
        let needed = |plan: &Plan| {
            let text = plan.to_string();
            text.contains("redis_pause") && text.contains("redis_tear")
        };
        let short = shrink(&long, 20, needed);
        assert_eq!(short, plan("redis_pause@2s+1s redis_tear@4s+1s"));
    }

    #[test]
    fn it_ends_after_so_many_tries_and_never_leaves_nothing() {
        let long = plan("kill_node@1s redis_pause@2s+1s redis_full@3s+1s");
        let mut tries = 0;
        let short = shrink(&long, 1, |_| {
            tries += 1;
            true
        });
        assert_eq!((tries, short.events.len()), (1, 2));
        assert_eq!(shrink(&long, 20, |_| true).events.len(), 1);
        assert_eq!(shrink(&long, 20, |_| false), long);
    }
}
