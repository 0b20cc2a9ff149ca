//! From what was done, and when: in which time Redis may have forgotten, and in which a node may
//! have been away.
//!
//! Rule: pure. What is not in these windows is not excused.

use std::time::Duration;

use super::executor::{Done, Isolation};
use crate::faults::backend::proxy::Mode;
use crate::faults::judge::Window;
use crate::faults::phases::UNDER_WAY;
use crate::faults::plan::{Action, Backing, FULL, LARGE, ROOMY, SMALL};

/// Until all nodes have noticed what happened to Redis.
const HEARD: Duration = Duration::from_secs(2);
/// A node that can reach Redis again has read what it missed within this time, even if each answer
/// is slow.
const BACK: Duration = Duration::from_secs(4);

/// What was done in a run, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deeds<'a> {
    pub(super) redis: Backing,
    pub(super) nodes: usize,
    pub(super) done: &'a [Done],
    pub(super) isolations: &'a [Isolation],
    /// The last action had ended.
    pub(super) over: Duration,
    /// All nodes and clients were served again.
    pub(super) healed: Duration,
}

impl Deeds<'_> {
    /// Returns when Redis may have forgotten what it was told.
    pub(super) fn forgetful(&self) -> Vec<Window> {
        let kept = |name: &String| {
            let snapshot =
                self.done.iter().find(|each| each.action == Action::Snapshot(name.clone()));
            snapshot.map_or(Duration::ZERO, |each| each.from)
        };
        let windows = self.done.iter().filter_map(|Done { from, to, action }| match action {
            Action::StartRedisWith(name) => Some((kept(name), *to)),
            Action::FailOver | Action::KillMaster => Some((*from, self.healed)),
            _ => None,
        });
        windows
            .chain(self.emptied())
            .map(|(from, to)| (from.saturating_sub(UNDER_WAY), to + HEARD))
            .collect()
    }

    /// Returns for each node when messages were accepted that Redis let go of while the node was
    /// away.
    pub(super) fn unkept(&self) -> Vec<Vec<Window>> {
        let emptied: Vec<Window> = self.emptied().chain(self.short()).collect();
        let of_node = |away: Vec<Window>| {
            let pairs =
                away.iter().flat_map(|away| emptied.iter().map(move |emptied| (*away, *emptied)));
            let missed = pairs.filter(|(away, emptied)| away.0 <= emptied.1 && emptied.0 <= away.1);
            missed.map(|(away, emptied)| (away.0, emptied.1 + HEARD)).collect()
        };
        self.away().into_iter().map(of_node).collect()
    }

    /// Returns when Redis was short of memory: a channel that nobody hears begins anew after a
    /// second.
    pub(super) fn short(&self) -> impl Iterator<Item = Window> {
        let full = self.done.iter().filter(|each| each.action == Action::Tell(FULL));
        full.map(|each| (each.from, self.until(each.from, |action| *action == Action::Tell(ROOMY))))
    }

    /// Returns for each node when it may have been without Redis, or stood still, and until it has
    /// read what it missed.
    pub(super) fn away(&self) -> Vec<Vec<Window>> {
        (0..self.nodes).map(|node| self.away_of(node)).collect()
    }

    /// Returns for each node when it may have had to do without Redis, be it that Redis took no
    /// writes or did not answer in time.
    pub(super) fn alone(&self) -> Vec<Vec<Window>> {
        self.away_or(|action| matches!(action, Action::Tell(FULL) | Action::Links(Mode::Slow)))
    }

    /// The same of nodes whose connections may have been given up, so that clients join without
    /// Redis.
    pub(super) fn away_or_slow(&self) -> Vec<Vec<Window>> {
        self.away_or(|action| *action == Action::Links(Mode::Slow))
    }

    /// Returns for each node when it was away, or such an action was in force.
    fn away_or(&self, is_such: impl Fn(&Action) -> bool) -> Vec<Vec<Window>> {
        let such = self.done.iter().filter(|each| is_such(&each.action)).map(|each| {
            let is_over = |action: &Action| match each.action {
                Action::Tell(_) => *action == Action::Tell(ROOMY),
                _ => *action == Action::Links(Mode::Pass),
            };
            self.widen((each.from, self.until(each.from, is_over)))
        });
        let such: Vec<Window> = such.collect();
        self.away().into_iter().map(|away| [away, such.clone()].concat()).collect()
    }

    /// Returns the window from when a message was under way until a node is back.
    fn widen(&self, (from, to): Window) -> Window {
        (from.saturating_sub(UNDER_WAY), (to + BACK).min(self.healed.max(to)))
    }

    fn away_of(&self, node: usize) -> Vec<Window> {
        let own = self.isolations.iter().filter(|each| each.node == node);
        let own = own.map(|each| (each.from, each.to.unwrap_or(self.over)));
        let all = self.done.iter().filter_map(|Done { from, to, action }| match action {
            Action::KillRedis => {
                let starts = |action: &Action| {
                    matches!(action, Action::StartRedis | Action::StartRedisWith(_))
                };
                Some((*from, self.until(*from, starts)))
            }
            Action::FreezeRedis => {
                let goes_on =
                    |action: &Action| matches!(action, Action::WakeRedis | Action::KillRedis);
                Some((*from, self.until(*from, goes_on)))
            }
            Action::Tell(SMALL) => {
                Some((*from, self.until(*from, |action| *action == Action::Tell(LARGE))))
            }
            // Memory that is short, or answers that are slow, keep nobody away.
            Action::Tell(FULL | ROOMY) => None,
            Action::Tell(_) | Action::MoveSlots => Some((*from, *to)),
            Action::FailOver | Action::KillMaster => Some((*from, self.healed)),
            _ => None,
        });
        merged(own.chain(all).map(|window| self.widen(window)).collect(), Duration::ZERO)
    }

    /// Returns when Redis may have lost everything.
    fn emptied(&self) -> impl Iterator<Item = Window> {
        let killed = |before: Duration| {
            let kills = self
                .done
                .iter()
                .filter(|each| each.from <= before && each.action == Action::KillRedis);
            kills.map(|each| each.from).max().unwrap_or_default()
        };
        self.done.iter().filter_map(move |Done { from, to, action }| match action {
            Action::StartRedis if self.redis == Backing::Forgetful => Some((killed(*from), *to)),
            // Keys and streams expire by that clock, at any time after it was set.
            Action::Clock(_) => Some((*from, self.over)),
            // A server that is frozen executes it when it wakes.
            Action::Tell(words) if words.contains(&"FLUSHALL") => {
                Some((*from, self.until(*from, |action| *action == Action::WakeRedis)))
            }
            _ => None,
        })
    }

    /// Returns when such an action was done next.
    fn until(&self, from: Duration, is_end: impl Fn(&Action) -> bool) -> Duration {
        let end = self.done.iter().find(|each| each.from >= from && is_end(&each.action));
        end.map_or(self.over, |each| each.to)
    }
}

/// Makes one of windows that are no further apart than `gap`.
pub(super) fn merged(mut windows: Vec<Window>, gap: Duration) -> Vec<Window> {
    windows.sort_unstable();
    windows.into_iter().fold(Vec::new(), |mut merged: Vec<Window>, (from, to)| {
        match merged.last_mut() {
            Some((_, last)) if from <= *last + gap => *last = to.max(*last),
            _ => merged.push((from, to)),
        }
        merged
    })
}

/// Returns the window from the first of these to the last.
pub(super) fn hull(windows: impl IntoIterator<Item = Window>) -> Option<Window> {
    windows.into_iter().reduce(|one, two| (one.0.min(two.0), one.1.max(two.1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Actions that were done at these times, in milliseconds, each within 100 more.
    fn done(actions: &[(u64, Action)]) -> Vec<Done> {
        let done = |(from, action): &(u64, Action)| Done {
            from: at(*from),
            to: at(from + 100),
            action: action.clone(),
        };
        actions.iter().map(done).collect()
    }

    const fn deeds<'a>(redis: Backing, done: &'a [Done], isolations: &'a [Isolation]) -> Deeds<'a> {
        Deeds { redis, nodes: 2, done, isolations, over: at(8000), healed: at(9000) }
    }

    const fn isolation(node: usize, from: u64, to: u64) -> Isolation {
        Isolation { node, from: at(from), to: Some(at(to)), frozen: false }
    }

    #[test]
    fn what_redis_may_forget_is_known_from_what_was_done() {
        let windows =
            |redis, actions: &[(u64, Action)]| deeds(redis, &done(actions), &[]).forgetful();
        let restart = [(1000, Action::KillRedis), (2000, Action::StartRedis)];
        assert_eq!(windows(Backing::Durable, &restart), []);
        assert_eq!(windows(Backing::Forgetful, &restart), [(at(500), at(4100))]);
        let name = "older".to_owned();
        let older = [
            (500, Action::Snapshot(name.clone())),
            (4000, Action::KillRedis),
            (5000, Action::StartRedisWith(name)),
        ];
        assert_eq!(windows(Backing::Forgetful, &older), [(at(0), at(7100))]);
        let flush = [(3000, Action::Tell(&["FLUSHALL"])), (4000, Action::WakeRedis)];
        assert_eq!(windows(Backing::Durable, &flush), [(at(2500), at(6100))]);
        let failover = [(1000, Action::FailOver), (5000, Action::KillMaster)];
        assert_eq!(
            windows(Backing::Sentinel, &failover),
            [(at(500), at(11_000)), (at(4500), at(11_000))]
        );
    }

    #[test]
    fn a_node_is_away_until_it_can_have_read_what_it_missed() {
        let away = |actions: &[(u64, Action)], isolations: &[Isolation]| {
            deeds(Backing::Durable, &done(actions), isolations).away()
        };
        assert_eq!(away(&[(1000, Action::StopNode(0))], &[]), [[], []]);
        assert_eq!(away(&[], &[isolation(1, 1000, 3000)]), [vec![], vec![(at(500), at(7000))]]);
        let paused = [(1000, Action::FreezeRedis), (3000, Action::WakeRedis)];
        assert_eq!(
            away(&paused, &[isolation(1, 7000, 7500)]),
            [vec![(at(500), at(7100))], vec![(at(500), at(9000))]]
        );
    }

    #[test]
    fn a_node_that_redis_refuses_is_alone_and_not_away() {
        let full = done(&[(1000, Action::Tell(FULL)), (2000, Action::Tell(ROOMY))]);
        let isolations = [isolation(1, 7000, 8000)];
        let deeds = deeds(Backing::Durable, &full, &isolations);
        assert_eq!(deeds.away(), [vec![], vec![(at(6500), at(9000))]]);
        let refused = (at(500), at(6100));
        assert_eq!(deeds.alone(), [vec![refused], vec![(at(6500), at(9000)), refused]]);
        assert_eq!(deeds.away_or_slow(), deeds.away(), "who joins is told by Redis");
        let slow = [(1000, Action::Links(Mode::Slow)), (2000, Action::Links(Mode::Pass))];
        let slow = done(&slow);
        let slow = Deeds { done: &slow, isolations: &[], ..deeds };
        assert_eq!(slow.away(), [[], []]);
        assert_eq!(slow.away_or_slow(), [[refused], [refused]]);
    }

    #[test]
    fn what_is_let_go_of_is_missed_by_who_was_away_then() {
        let unkept = |actions: &[(u64, Action)], isolations: &[Isolation]| {
            deeds(Backing::Durable, &done(actions), isolations).unkept()
        };
        let step = [(6000, Action::Clock(60))];
        assert_eq!(unkept(&step, &[]), [[], []], "who is there has read everything");
        assert_eq!(
            unkept(&step, &[isolation(1, 500, 1000)]),
            [[], []],
            "it has been back for long"
        );
        assert_eq!(unkept(&step, &[isolation(1, 500, 3000)]), [vec![], vec![(at(0), at(10_000))]]);
        let full = [(5000, Action::Tell(FULL)), (6000, Action::Tell(ROOMY))];
        assert_eq!(unkept(&full, &[isolation(1, 2000, 7000)])[1], [(at(1500), at(8100))]);
        let full = done(&full);
        let short: Vec<Window> = deeds(Backing::Durable, &full, &[]).short().collect();
        assert_eq!(short, [(at(5000), at(6100))]);
    }
}
