//! Notes written by hand, each with one thing wrong.

use super::*;

const fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn facts() -> Facts {
    Facts { lease: at(2000), end: at(60_000), ..Facts::default() }
}

/// A connection at a node, open from 1 s to the given time, where the client ends it.
fn connection(id: &str, node: usize, ended: Option<u64>) -> Connection {
    Connection {
        id: id.to_owned(),
        opened: at(1000),
        node: Some(node),
        ended: ended.map(|millis| (at(millis), 1000)),
        by_client: true,
        ..Connection::default()
    }
}

/// Somebody who stays, and was told of these ends.
fn watcher(node: usize, told: &[&str]) -> Connection {
    let disconnects = told.iter().map(|id| ((*id).to_owned(), at(5000))).collect();
    Connection { opened: at(0), disconnects, ..connection("watcher", node, None) }
}

fn found(log: &Log, facts: &Facts) -> Vec<(&'static str, u64)> {
    let found = violations(log, facts, &Findings::default());
    found.into_iter().map(|violation| (violation.kind, violation.count)).collect()
}

fn with(connections: Vec<Connection>) -> Log {
    Log { connections, ..Log::default() }
}

fn isolations(node: usize, from: u64, to: u64, frozen: bool) -> Isolation {
    Isolation { node, from: at(from), to: Some(at(to)), frozen }
}

fn exit(node: usize, millis: u64, code: i32) -> Exit {
    Exit { node, at: at(millis), code, asked: 0, killed: false }
}

#[test]
fn every_end_is_told_once_by_whoever_was_there() {
    let ended = || connection("a", 1, Some(4000));
    assert_eq!(found(&with(vec![ended(), watcher(0, &["a"]), watcher(1, &["a"])]), &facts()), []);
    assert_eq!(found(&with(vec![ended(), watcher(0, &[])]), &facts()), [("$disconnect never", 1)]);
    assert_eq!(
        found(&with(vec![ended(), watcher(0, &["a", "a"])]), &facts()),
        [("$disconnect twice", 1)]
    );
    // Nobody was there all the time.
    let late = Connection { opened: at(4500), ..watcher(0, &[]) };
    assert_eq!(found(&with(vec![ended(), late]), &facts()), []);
}

#[test]
fn a_connection_that_is_open_is_not_told_to_have_ended() {
    let log = with(vec![connection("a", 1, None), watcher(0, &["a"])]);
    assert_eq!(found(&log, &facts()), [("$disconnect of an open connection", 1)]);
}

#[test]
fn what_redis_has_forgotten_may_be_told_twice_or_never() {
    let facts = Facts { forgetful: vec![(at(5000), at(6000))], ..facts() };
    for told in [&[][..], &["a", "a"]] {
        assert_eq!(
            found(&with(vec![connection("a", 1, Some(4000)), watcher(0, told)]), &facts),
            []
        );
        assert_eq!(
            found(&with(vec![connection("a", 1, Some(7000)), watcher(0, told)]), &facts).len(),
            1
        );
    }
}

#[test]
fn what_redis_lets_go_of_may_be_told_to_nobody_but_not_twice() {
    let facts = Facts { unkept: vec![(at(5000), at(6000))], ..facts() };
    let found = |told: &[&str]| {
        found(&with(vec![connection("a", 1, Some(4000)), watcher(0, told)]), &facts)
    };
    assert_eq!(found(&[]), []);
    assert_eq!(found(&["a", "a"]), [("$disconnect twice", 1)]);
}

#[test]
fn a_node_lives_on_whose_mark_redis_has_forgotten_before_the_node_saw_it() {
    let log = with(vec![connection("a", 1, None), watcher(0, &["a"])]);
    let forgetful = Facts { forgetful: vec![(at(5000), at(6000))], ..facts() };
    assert_eq!(found(&log, &forgetful), [("$disconnect of an open connection", 1)]);
    let facts = Facts { isolations: vec![isolations(1, 2000, 5000, false)], ..forgetful };
    assert_eq!(found(&log, &facts), []);
}

#[test]
fn an_end_is_told_to_nobody_if_redis_has_forgotten_a_connection_whose_node_is_away() {
    let log = with(vec![connection("a", 1, Some(20_000)), watcher(0, &[])]);
    let away = |from| Facts {
        end: at(40_000),
        forgetful: vec![(at(1000), at(2000))],
        isolations: vec![isolations(1, from, 19_000, true)],
        ..facts()
    };
    assert_eq!(found(&log, &away(1500)), []);
    assert_eq!(found(&log, &away(2500)), [("$disconnect never", 1)], "it has said so again");
}

#[test]
fn without_redis_a_node_may_tell_what_others_tell_too_once_they_have_taken_it_for_dead() {
    let local = Facts { local: true, ..facts() };
    let facts = Facts { isolations: vec![isolations(1, 2000, 5000, false)], ..local.clone() };
    let found = |told: &[&str], node, facts: &Facts| {
        found(&with(vec![connection("a", 1, Some(4000)), watcher(node, told)]), facts)
    };
    assert_eq!(found(&["a", "a"], 1, &facts), []);
    assert_eq!(found(&["a", "a", "a"], 1, &facts), [("$disconnect twice", 1)]);
    assert_eq!(found(&["a", "a"], 0, &facts), [("$disconnect twice", 1)]);
    assert_eq!(found(&["a", "a"], 1, &local), [("$disconnect twice", 1)]);
}

#[test]
fn without_redis_a_node_may_tell_its_own_clients_alone() {
    let facts = Facts { local: true, ..facts() };
    let ended = || connection("a", 1, Some(4000));
    assert_eq!(found(&with(vec![ended(), watcher(0, &[])]), &facts), []);
    assert_eq!(found(&with(vec![ended(), watcher(1, &[])]), &facts), [("$disconnect never", 1)]);
}

#[test]
fn only_who_was_out_of_the_world_beyond_a_lease_ends_with_75() {
    let log = Log::default();
    let isolated_by = |isolations| Facts { exits: vec![exit(0, 9000, 75)], isolations, ..facts() };
    assert_eq!(found(&log, &isolated_by(vec![])), [("exit 75", 1)]);
    assert_eq!(found(&log, &isolated_by(vec![isolations(0, 5000, 5900, true)])), [("exit 75", 1)]);
    assert_eq!(found(&log, &isolated_by(vec![isolations(1, 5000, 8000, true)])), [("exit 75", 1)]);
    assert_eq!(found(&log, &isolated_by(vec![isolations(0, 5000, 8000, false)])), []);
    let twice = |from| vec![isolations(0, 5000, 5900, false), isolations(0, from, 7000, true)];
    assert_eq!(found(&log, &isolated_by(twice(6500))), [("exit 75", 1)]);
    assert_eq!(found(&log, &isolated_by(twice(5950))), [], "it was not back in between");
    // That was before the process began.
    let facts = Facts {
        exits: vec![Exit { killed: true, ..exit(0, 8500, 0) }, exit(0, 9000, 75)],
        isolations: vec![isolations(0, 5000, 8000, true)],
        ..facts()
    };
    assert_eq!(found(&log, &facts), [("exit 75", 1)]);
}

#[test]
fn who_is_told_to_end_ends_well_and_nobody_else_does() {
    for (exit, is_right) in [
        (exit(0, 9000, 0), false),
        (exit(0, 9000, 101), false),
        (Exit { asked: 1, ..exit(0, 9000, 0) }, true),
        (Exit { asked: 1, ..exit(0, 9000, 1) }, false),
        (Exit { asked: 2, ..exit(0, 9000, 1) }, true),
        (exit(0, 9000, 137), false),
        (Exit { killed: true, ..exit(0, 9000, 137) }, true),
        (exit(0, 900, 143), false),
        (Exit { asked: 1, ..exit(0, 900, 143) }, true),
        (Exit { asked: 1, ..exit(0, 9000, 143) }, false),
    ] {
        let facts = Facts { exits: vec![exit], ..facts() };
        assert_eq!(found(&Log::default(), &facts).is_empty(), is_right, "{exit:?}");
    }
}

#[test]
fn a_connection_ends_with_its_node_or_by_its_client() {
    let closed = Connection { by_client: false, ..connection("a", 1, Some(4000)) };
    let log = with(vec![closed, watcher(0, &["a"])]);
    assert_eq!(found(&log, &facts()), [("closed", 1)]);
    let of = |node| Facts { exits: vec![Exit { asked: 1, ..exit(node, 5000, 0) }], ..facts() };
    assert_eq!(found(&log, &of(0)), [("closed", 1)]);
    assert_eq!(found(&log, &of(1)), []);
}

#[test]
fn an_open_connection_is_not_gone_and_gets_its_posts_once() {
    let post = |status, answered| Post {
        number: 7,
        to: "a".to_owned(),
        posted: at(3000),
        answered: at(answered),
        status: Some(status),
    };
    let with = |post, received: &[u32]| {
        let open = Connection { posts: received.to_vec(), ..connection("a", 1, Some(8000)) };
        Log { connections: vec![open, watcher(0, &["a"])], posts: vec![post], ..Log::default() }
    };
    assert_eq!(found(&with(post(200, 3100), &[7]), &facts()), []);
    assert_eq!(found(&with(post(503, 3100), &[7]), &facts()), []);
    assert_eq!(found(&with(post(200, 3100), &[]), &facts()), [("post lost", 1)]);
    assert_eq!(found(&with(post(200, 3100), &[7, 7]), &facts()), [("post doubled", 1)]);
    assert_eq!(found(&with(post(410, 3100), &[]), &facts()), [("410 for an open connection", 1)]);
    assert_eq!(found(&with(post(410, 7900), &[]), &facts()), [], "it was just ending");
    let frozen = Facts { isolations: vec![isolations(1, 1100, 5000, true)], ..facts() };
    assert_eq!(found(&with(post(410, 3100), &[]), &frozen), [], "its node was dead for all others");
    assert_eq!(found(&with(post(410, 2000), &[]), &frozen).len(), 1, "but not yet");
    let started = |millis| Facts {
        exits: vec![exit(0, millis, 0)].into_iter().map(|exit| Exit { asked: 1, ..exit }).collect(),
        forgetful: vec![(at(1500), at(2500))],
        ..facts()
    };
    assert_eq!(found(&with(post(410, 3100), &[]), &started(2000)), [], "it knows nobody yet");
    assert_eq!(
        found(&with(post(410, 4100), &[]), &started(2000)).len(),
        1,
        "it has had a lease's time"
    );
    assert_eq!(found(&with(post(410, 3100), &[]), &started(1400)).len(), 1, "it knew all before");
    assert_eq!(found(&with(post(410, 3100), &[]), &started(2600)).len(), 1, "all have renewed");
}

#[test]
fn wishes_are_answered_once_each_and_in_order() {
    let request = |reply: &str, answer: Option<&str>| Request {
        reply: reply.to_owned(),
        sent: at(2000),
        answer: answer.map(|answer| (answer.to_owned(), at(2100))),
    };
    let of = |requests: Vec<Request>, ended| {
        with(vec![Connection { requests, ..connection("a", 1, Some(ended)) }, watcher(0, &["a"])])
    };
    let (join, leave) = ("joined x", "left x");
    let good = vec![request(join, Some(join)), request(leave, Some("Internal server error"))];
    assert_eq!(found(&of(good, 9000), &facts()), []);
    let swapped = vec![request(join, Some(leave)), request(leave, Some(join))];
    assert_eq!(found(&of(swapped, 9000), &facts()), [("join out of order", 2)]);
    let missing = || vec![request(join, Some(join)), request(leave, None)];
    assert_eq!(found(&of(missing(), 9000), &facts()), [("join unanswered", 1)]);
    assert_eq!(found(&of(missing(), 3000), &facts()), [], "the client did not wait");
    let frozen = Facts { isolations: vec![isolations(1, 2500, 6000, true)], ..facts() };
    assert_eq!(found(&of(missing(), 9000), &frozen), []);
    let skipped = vec![request(join, None), request(leave, Some(leave))];
    assert_eq!(found(&of(skipped, 3000), &facts()), [("join unanswered", 1)]);
}
