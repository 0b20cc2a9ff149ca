//! Logs written by hand, each with one thing wrong.

use super::*;

const fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn id(number: u32) -> Id {
    Id { channel: 0, publisher: 0, number }
}

/// Publication `n` is posted at `n` seconds and accepted 10 ms later as offset `n`.
fn published(answers: &[Answer]) -> Vec<Publication> {
    (1..)
        .zip(answers)
        .map(|(number, answer)| Publication {
            id: id(number),
            posted: at(u64::from(number) * 1000),
            answered: at(u64::from(number) * 1000 + 10),
            answer: *answer,
            keyed: false,
            local: false,
            node: None,
        })
        .collect()
}

fn accepted(count: u64) -> Vec<Publication> {
    let answers: Vec<Answer> = (1..=count).map(|offset| Answer::Accepted(Some(offset))).collect();
    published(&answers)
}

/// A connection from the start that received these numbers.
fn connection(numbers: &[u32]) -> Connection {
    let received =
        numbers.iter().map(|number| (id(*number), at(u64::from(*number) * 1000 + 5))).collect();
    Connection { received, ..Connection::default() }
}

fn judged(publications: Vec<Publication>, connections: Vec<Connection>) -> Findings {
    judge(&Log { publications, connections, ..Log::default() }, &Allowances::default())
}

/// (owed, lost, duplicated, reordered, phantom)
fn counts(findings: &Findings) -> (u64, u64, u64, u64, u64) {
    let Findings { owed, lost, duplicated, reordered, phantom, .. } = findings;
    (*owed, *lost, *duplicated, *reordered, *phantom)
}

#[test]
fn a_complete_log_has_nothing_wrong() {
    let findings = judged(accepted(4), vec![connection(&[1, 2, 3, 4]), connection(&[1, 2, 3, 4])]);
    assert_eq!(counts(&findings), (8, 0, 0, 0, 0));
    assert_eq!((findings.accepted, findings.examples.len()), (4, 0));
}

#[test]
fn losses_are_found_at_the_head_in_the_middle_and_at_the_end() {
    for numbers in [&[2, 3, 4][..], &[1, 2, 4], &[1, 2, 3]] {
        let findings = judged(accepted(4), vec![connection(numbers), connection(&[1, 2, 3, 4])]);
        assert_eq!(counts(&findings), (8, 1, 0, 0, 0), "{numbers:?}");
        assert_eq!(findings.examples.len(), 1);
    }
    assert_eq!(counts(&judged(accepted(4), vec![connection(&[])])), (4, 4, 0, 0, 0));
}

#[test]
fn what_comes_again_is_counted_each_time_and_is_not_out_of_order() {
    let findings = judged(accepted(3), vec![connection(&[1, 1, 2, 3, 1])]);
    assert_eq!(counts(&findings), (3, 0, 2, 0, 0));
}

#[test]
fn the_same_message_on_a_later_connection_is_no_duplicate() {
    let first = Connection { ended: Some((at(2005), 1001)), ..connection(&[1, 2]) };
    let second = Connection { opened: at(2500), ..connection(&[2, 3]) };
    assert_eq!(judged(accepted(3), vec![first, second]).duplicated, 0);
}

#[test]
fn an_order_other_than_that_of_the_offsets_is_found_even_if_all_agree() {
    let findings = judged(accepted(3), vec![connection(&[1, 3, 2]), connection(&[1, 3, 2])]);
    assert_eq!(counts(&findings), (6, 0, 0, 2, 0));
}

#[test]
fn what_is_in_doubt_may_come_or_not_but_once_and_in_one_order_for_all() {
    let doubtful = || {
        published(&[
            Answer::Accepted(Some(1)),
            Answer::InDoubt,
            Answer::InDoubt,
            Answer::Accepted(Some(3)),
        ])
    };
    for one in [&[1, 4][..], &[1, 2, 4], &[1, 2, 4, 3]] {
        let findings = judged(doubtful(), vec![connection(one), connection(&[1, 4])]);
        assert_eq!(counts(&findings), (4, 0, 0, 0, 0), "{one:?}");
        assert_eq!(findings.in_doubt, 2);
    }
    assert_eq!(judged(doubtful(), vec![connection(&[1, 2, 2, 4])]).duplicated, 1);
    let findings = judged(doubtful(), vec![connection(&[1, 2, 3, 4]), connection(&[1, 3, 2, 4])]);
    assert!(findings.reordered >= 1);
}

#[test]
fn what_is_for_one_node_alone_has_no_place_in_the_order_of_all() {
    let mut publications =
        published(&[Answer::Accepted(Some(1)), Answer::InDoubt, Answer::Accepted(Some(2))]);
    let sequences = || vec![connection(&[1, 2, 3]), connection(&[1, 3, 2]), connection(&[2, 1, 3])];
    assert!(judged(publications.clone(), sequences()).reordered > 0);
    publications[1].local = true;
    assert_eq!(judged(publications, sequences()).reordered, 0);
}

#[test]
fn a_name_may_come_twice_only_where_redis_has_forgotten_it() {
    let judged = |keyed, forgetful, resent| {
        let mut publications = accepted(3);
        publications[1].keyed = keyed;
        let log =
            Log { publications, connections: vec![connection(&[1, 2, 2, 3])], ..Log::default() };
        let forgetful = Option::into_iter(forgetful).collect();
        judge(&log, &Allowances { forgetful, resent, ..Allowances::default() }).duplicated
    };
    assert_eq!(judged(true, None, None), 1);
    assert_eq!(judged(true, Some((at(1500), at(2500))), None), 0);
    assert_eq!(judged(true, Some((at(2500), at(3500))), None), 1);
    assert_eq!(judged(false, Some((at(1500), at(2500))), None), 1);
    // A node that was asked for it may hold it still.
    assert_eq!(judged(true, Some((at(2500), at(3500))), Some(at(1000))), 0);
    assert_eq!(judged(false, Some((at(2500), at(3500))), Some(at(1000))), 1);
}

#[test]
fn who_joins_without_redis_is_owed_what_is_accepted_after_it() {
    let joined = |opened, node| {
        let connection = Connection { opened: at(opened), node: Some(node), ..connection(&[4]) };
        let log =
            Log { publications: accepted(4), connections: vec![connection], ..Log::default() };
        let alone = vec![vec![(at(1000), at(2500))]];
        let findings = judge(&log, &Allowances { alone, ..Allowances::default() });
        (findings.owed, findings.lost)
    };
    assert_eq!(joined(1500, 0), (2, 1), "the third");
    assert_eq!(joined(1500, 1), (3, 2), "its node was there");
    assert_eq!(joined(500, 0), (4, 3), "it had joined before");
}

#[test]
fn what_was_refused_must_not_come() {
    let publications = published(&[Answer::Accepted(Some(1)), Answer::Refused]);
    assert_eq!(counts(&judged(publications, vec![connection(&[1, 2])])), (1, 0, 0, 0, 1));
    assert_eq!(judged(accepted(1), vec![Connection { foreign: 2, ..connection(&[1]) }]).phantom, 2);
}

#[test]
fn only_what_was_accepted_within_a_membership_is_owed() {
    // Opened while the first was under way, closed while the third was.
    let connection =
        Connection { opened: at(1005), ended: Some((at(3005), 1006)), ..connection(&[2]) };
    let findings = judged(accepted(4), vec![connection]);
    assert_eq!(counts(&findings), (1, 0, 0, 0, 0));
    assert_eq!(findings.closed, BTreeMap::from([(1006, 1)]));
}

#[test]
fn members_of_a_group_are_owed_from_when_they_had_joined() {
    let mut publications = accepted(3);
    publications.iter_mut().for_each(|publication| publication.id.channel = 1);
    let to =
        |numbers: &[u32]| numbers.iter().map(|n| (Id { channel: 1, ..id(*n) }, at(0))).collect();
    let member =
        Connection { joined: Some((1, at(1500))), received: to(&[2, 3]), ..Connection::default() };
    let stranger = Connection { received: to(&[3]), ..Connection::default() };
    assert_eq!(counts(&judged(publications, vec![member, stranger])), (2, 0, 0, 0, 1));
}

#[test]
fn who_has_asked_to_join_may_get_messages_before_the_answer_and_who_was_refused_may_not() {
    let mut publications = accepted(2);
    publications.iter_mut().for_each(|publication| publication.id.channel = 1);
    let phantoms = |asked| {
        let received = vec![(Id { channel: 1, ..id(2) }, at(2005))];
        let ended = Some((at(2010), 1006));
        judged(
            publications.clone(),
            vec![Connection { asked, received, ended, ..Connection::default() }],
        )
        .phantom
    };
    assert_eq!(phantoms(Some((1, at(1500)))), 0);
    assert_eq!(phantoms(Some((1, at(2007)))), 1, "it asked later");
    assert_eq!(phantoms(Some((2, at(1500)))), 1, "it asked for another group");
    assert_eq!(phantoms(None), 1);
}

#[test]
fn a_close_excuses_the_last_moment_only_and_never_a_gap() {
    let ended =
        |numbers: &[u32]| Connection { ended: Some((at(4500), 1001)), ..connection(numbers) };
    let cut = judged(accepted(5), vec![ended(&[1, 2, 3]), connection(&[1, 2, 3, 4, 5])]);
    assert_eq!((cut.lost, cut.cut), (0, 1), "the fourth was accepted half a second before");
    let early = judged(accepted(5), vec![ended(&[1, 2]), connection(&[1, 2, 3, 4, 5])]);
    assert_eq!((early.lost, early.cut), (1, 1), "the third was accepted long before");
    let gap = judged(accepted(5), vec![ended(&[1, 2, 4]), connection(&[1, 2, 3, 4, 5])]);
    assert_eq!((gap.lost, gap.cut), (1, 0));
    let allowances = Allowances { frozen: true, ..Allowances::default() };
    let log = Log { publications: accepted(5), connections: vec![ended(&[1])], ..Log::default() };
    assert_eq!((judge(&log, &allowances).lost, judge(&log, &allowances).cut), (0, 3));
}

#[test]
fn who_is_closed_by_a_node_that_was_away_misses_what_came_since_then() {
    let ended =
        |node| Connection { ended: Some((at(4500), 1001)), node: Some(node), ..connection(&[1]) };
    let found = |node, window| {
        let allowances = Allowances { away: vec![vec![window], vec![]], ..Allowances::default() };
        let log =
            Log { publications: accepted(5), connections: vec![ended(node)], ..Log::default() };
        let findings = judge(&log, &allowances);
        (findings.lost, findings.cut)
    };
    assert_eq!(found(0, (at(1500), at(4000))), (0, 3));
    assert_eq!(found(0, (at(2500), at(4000))), (1, 2), "the second was accepted before");
    assert_eq!(found(0, (at(1500), at(3000))), (2, 1), "it was back long before");
    assert_eq!(found(1, (at(1500), at(4000))), (2, 1), "another node was away");
}

#[test]
fn what_came_to_one_node_alone_does_not_turn_a_close_into_a_gap() {
    // The answer that would have said so was lost, so its place is not known.
    let mut publications = accepted(4);
    let doubtful =
        |number| Publication { id: id(number), ..published(&[Answer::InDoubt])[0].clone() };
    publications.extend([doubtful(0), doubtful(9)]);
    let ended =
        |numbers: &[u32]| Connection { ended: Some((at(4500), 1001)), ..connection(numbers) };
    for alone in [0, 9] {
        let found =
            judged(publications.clone(), vec![ended(&[1, 2, 3, alone]), connection(&[1, 2, 3, 4])]);
        assert_eq!((found.lost, found.cut), (0, 1));
    }
}

#[test]
fn what_redis_lets_go_of_may_be_missed_but_not_come_twice() {
    let allowances =
        Allowances { unkept: vec![vec![(at(2500), at(4500))]], ..Allowances::default() };
    let judged = |numbers: &[u32]| {
        let connections = vec![Connection { node: Some(0), ..connection(numbers) }];
        let publications = accepted(6);
        judge(&Log { publications, connections, ..Log::default() }, &allowances)
    };
    let missed = judged(&[1, 5, 6]);
    assert_eq!((missed.forgotten, missed.lost), (2, 1), "the second was accepted before");
    assert_eq!(judged(&[1, 2, 3, 3, 4, 5, 6]).duplicated, 1);
}

#[test]
fn a_forgetful_redis_is_excused_around_the_fault_and_may_count_anew() {
    let mut publications = accepted(6);
    for (publication, offset) in publications.iter_mut().zip([1, 2, 3, 1, 2, 3]) {
        publication.answer = Answer::Accepted(Some(offset));
    }
    let window = (at(2500), at(4500));
    let allowances =
        Allowances { forgetful: vec![window], recount: Some(window), ..Allowances::default() };
    let judged = |numbers: &[u32]| {
        let publications = publications.clone();
        judge(
            &Log { publications, connections: vec![connection(numbers)], ..Log::default() },
            &allowances,
        )
    };
    let findings = judged(&[1, 2, 5, 6]);
    assert_eq!((findings.forgotten, counts(&findings)), (2, (6, 0, 0, 0, 0)));
    let findings = judged(&[1, 3, 4, 5, 6]);
    assert_eq!((findings.forgotten, findings.lost), (0, 1), "the second was accepted before");
    assert_eq!(judged(&[1, 2, 3, 4, 6, 5]).reordered, 1);
    assert_eq!(judged(&[1, 2, 3, 4, 2, 5, 6]).duplicated, 1);
}
