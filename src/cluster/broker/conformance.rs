//! The contract of [`crate::model::broker::Broker`], as one suite that every implementation has to
//! pass: `memory` alone, `redis` with two nodes on a server of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use rustix::process::Signal;
use tokio::sync::oneshot;

use self::bench::{Answer, Bench, SHARDS, group, publication};
use crate::model::broker::{Accepted, Channel, PublishError, Recipient, Standing};
use crate::model::id::{ConnectionId, NodeTag, RequestId};

mod bench;
mod server;

/// One test of the suite for each kind of bench.
macro_rules! suite {
    ($($test:ident),* $(,)?) => {
        mod memory {
            $(#[test] fn $test() { super::$test(&super::Bench::memory()); })*
        }
        mod redis {
            $(#[test] fn $test() { super::$test(&super::Bench::redis()); })*
        }
    };
}

suite!(
    only_shards_with_members_are_given_a_message,
    offsets_grow,
    a_key_is_published_once_on_each_channel,
    a_group_without_replay_is_delivered_and_not_counted,
    a_message_that_is_too_long_is_refused,
    ends_are_taken_on_every_channel_beside_keys_of_the_same_text,
    all_shards_see_one_order,
    refused_messages_reach_nobody_and_their_senders_know,
    every_receipt_is_answered,
    messages_count_from_when_a_subscription_stands,
    unsubscribing_ends_only_ones_own_interest,
    joining_again_at_once_doubles_nothing,
    interest_is_what_subscriptions_say,
);

fn only_shards_with_members_are_given_a_message(bench: &Bench) {
    let (group, user) = (group("moon"), Channel::User("moon".into()));
    let last = *bench.seats().last().expect("a seat");
    bench.join(1, &group);
    bench.join(last, &user);
    bench.publish(0, &group, "to the group").expect("accepted");
    bench.publish(1, &user, "to the user").expect("accepted");
    bench.publish(0, &Channel::Broadcast, "to all").expect("accepted");
    bench.publish(1, &self::group("sun"), "to nobody").expect("accepted");
    assert_eq!(bench.heard(&group, &[1]), ["to the group"]);
    assert_eq!(bench.heard(&user, &[last]), ["to the user"]);
    assert_eq!(bench.heard(&self::group("sun"), &[]), [""; 0]);
    assert_eq!(bench.heard(&Channel::Broadcast, &bench.seats()), ["to all"]);
}

fn offsets_grow(bench: &Bench) {
    let offsets: Vec<_> =
        (0..10).map(|node| bench.publish(node, &group("moon"), "x").expect("accepted")).collect();
    assert!(offsets.is_sorted_by(|a, b| a < b), "{offsets:?}");
}

fn a_key_is_published_once_on_each_channel(bench: &Bench) {
    let moon = group("moon");
    bench.join(1, &moon);
    let Ok(Accepted::At(first)) = bench.publish_named(0, &moon, "one", Some("key")) else {
        panic!("refused")
    };
    bench.publish(1, &moon, "two").expect("accepted");
    assert_eq!(bench.publish_named(1, &moon, "three", Some("key")), Ok(Accepted::Duplicate(first)));
    let on_another = bench.publish_named(0, &group("sun"), "one", Some("key"));
    assert!(matches!(on_another, Ok(Accepted::At(_))), "{on_another:?}");
    assert_eq!(bench.heard(&moon, &[1]), ["one", "two"]);
}

fn a_group_without_replay_is_delivered_and_not_counted(bench: &Bench) {
    let ticks = group("ticks-eur");
    bench.join(1, &ticks);
    assert_eq!(bench.publish_named(0, &ticks, "one", None), Ok(Accepted::Unkept));
    assert_eq!(bench.publish_named(1, &ticks, "two", Some("key")), Err(PublishError::KeyUnkept));
    bench.until("it comes", |heard| !heard[1].messages.is_empty());
    assert_eq!(bench.take_inboxes()[1].messages, [(ticks, "one".to_owned())]);
}

fn a_message_that_is_too_long_is_refused(bench: &Bench) {
    let moon = group("moon");
    bench.join(1, &moon);
    let most = 128 << 10;
    assert_eq!(
        bench.publish_named(0, &moon, &"x".repeat(most + 1), Some("key")),
        Err(PublishError::TooLong)
    );
    let first = bench.publish_named(0, &moon, "one", Some("key"));
    assert!(matches!(first, Ok(Accepted::At(_))), "what was refused has left no key: {first:?}");
    assert_eq!(bench.heard(&moon, &[1]), ["one"]);
}

fn ends_are_taken_on_every_channel_beside_keys_of_the_same_text(bench: &Bench) {
    let id = ConnectionId::mint(NodeTag::random());
    let (moon, ticks) = (group("moon"), group("ticks-eur"));
    for channel in [&moon, &ticks] {
        bench.join(1, channel);
    }
    for key in [id.as_str(), &format!("end:{id}"), &format!("}}:end:{id}")] {
        let result = bench.publish_named(0, &moon, "key", Some(key));
        assert!(matches!(result, Ok(Accepted::At(_))), "{key}: {result:?}");
    }
    let result = bench.publish_end(1, &moon, "end", id);
    assert!(matches!(result, Ok(Accepted::At(_))), "{result:?}");
    assert_eq!(bench.publish_end(0, &ticks, "end", id), Ok(Accepted::Unkept));
    bench.until("both come", |heard| heard[1].messages.len() == 5);
    let heard = bench.take_inboxes()[1].messages.split_off(0);
    let of = |channel: &Channel| heard.iter().filter(|(other, _)| other == channel).count();
    assert_eq!((of(&moon), of(&ticks)), (4, 1), "{heard:?}");
}

/// Where an answer can be lost: nothing else tells who asks again what has become of the first try.
#[test]
fn redis_broker_takes_an_end_once_whichever_node_sends_it() {
    let bench = Bench::redis();
    let id = ConnectionId::mint(NodeTag::random());
    let (moon, ticks) = (group("moon"), group("ticks-eur"));
    for channel in [&Channel::Broadcast, &moon] {
        let first = bench.publish_end(0, channel, "end", id);
        assert!(matches!(first, Ok(Accepted::At(_))), "{first:?}");
        for node in 0..2 {
            let again = bench.publish_end(node, channel, "again", id);
            assert!(matches!(again, Ok(Accepted::Duplicate(_))), "{again:?}");
        }
    }
    bench.join(1, &ticks);
    assert_eq!(bench.publish_end(0, &ticks, "end", id), Ok(Accepted::Unkept));
    for node in 0..2 {
        let result = bench.publish_end(node, &ticks, "again", id);
        assert!(matches!(result, Ok(Accepted::Duplicate(_))), "{result:?}");
    }
    assert_eq!(bench.publish_named(1, &ticks, "last", None), Ok(Accepted::Unkept));
    bench.until("the last comes", |heard| heard[1].messages.iter().any(|(_, text)| text == "last"));
    let heard = bench.take_inboxes()[1].messages.split_off(0);
    let texts: Vec<_> =
        heard.into_iter().filter(|(channel, _)| *channel == ticks).map(|(_, text)| text).collect();
    assert_eq!(texts, ["end", "last"]);
}

fn all_shards_see_one_order(bench: &Bench) {
    let publishers = 4;
    let each = 500;
    thread::scope(|scope| {
        for publisher in 0..publishers {
            scope.spawn(move || {
                for number in 0..each {
                    let text = format!("{publisher}:{number}");
                    bench.send(
                        publisher,
                        publication(&Channel::Broadcast, &text, Recipient::Nobody),
                    );
                }
            });
        }
    });
    let own_order = |texts: &[String], publisher: usize| {
        let own: Vec<_> = texts
            .iter()
            .filter(|text| text.starts_with(&format!("{publisher}:")))
            .cloned()
            .collect();
        let expected: Vec<_> = (0..each).map(|number| format!("{publisher}:{number}")).collect();
        assert_eq!(own, expected, "a publisher's own order is kept, none lost, none doubled");
    };
    // The last of each publisher: what one node accepted last says nothing of the others.
    bench.until("everything has come", |heard| {
        let is_last = |text: &String| text.ends_with(&format!(":{}", each - 1));
        heard.iter().all(|heard| {
            heard.messages.iter().filter(|(_, text)| is_last(text)).count() == publishers
        })
    });
    let texts = bench.heard(&Channel::Broadcast, &bench.seats());
    assert_eq!(texts.len(), publishers * each, "none lost, none doubled");
    (0..publishers).for_each(|publisher| own_order(&texts, publisher));
}

/// More than any queue holds, while no shard takes anything.
fn refused_messages_reach_nobody_and_their_senders_know(bench: &Bench) {
    let (most, after) = (400_000, 5_000);
    let id = ConnectionId::mint(NodeTag::random());
    let mut answers: BTreeMap<usize, Answer> = BTreeMap::new();
    let mut requests: BTreeMap<usize, RequestId> = BTreeMap::new();
    let (mut refused, mut number) = (BTreeSet::new(), 0);
    let mut end = most;
    while number < end {
        let (caller, mut answer) = oneshot::channel();
        bench.send(
            0,
            publication(&Channel::Broadcast, &number.to_string(), Recipient::Caller(caller)),
        );
        match answer.try_recv() {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                assert_eq!(error, PublishError::Overload);
                refused.insert(number);
                end = end.min(number + after);
            }
            Err(_) => drop(answers.insert(number, answer)),
        }
        number += 1;
        let request = RequestId::mint();
        bench.send(
            0,
            publication(&Channel::Broadcast, &number.to_string(), Recipient::Sender(id, request)),
        );
        requests.insert(number, request);
        number += 1;
    }
    assert!(end < most, "a queue without a bound");
    for (number, answer) in answers {
        if bench.answer(answer).is_err() {
            refused.insert(number);
        }
    }
    let texts = bench.heard(&Channel::Broadcast, &bench.seats());
    let failed: Vec<_> =
        bench.take_inboxes().iter_mut().flat_map(|heard| heard.failed.split_off(0)).collect();
    assert!(!failed.is_empty() && failed.iter().all(|(to, _)| *to == id));
    for (sent, request) in &requests {
        match failed.iter().filter(|(_, other)| other == request).count() {
            0 => {}
            1 => drop(refused.insert(*sent)),
            times => panic!("{sent} was refused {times} times"),
        }
    }
    let accepted: Vec<String> =
        (0..number).filter(|n| !refused.contains(n)).map(|n| n.to_string()).collect();
    assert_eq!(texts.len(), accepted.len(), "every shard has what was accepted, and nothing else");
    assert_eq!(texts, accepted);
    bench.publish(0, &Channel::Broadcast, "again").expect("there is room again");
}

fn every_receipt_is_answered(bench: &Bench) {
    let (publications, answers) = with_receipts(1_000);
    bench.send_all(1, publications);
    // One who does not wait for the answer is in nobody's way.
    let (caller, gone) = oneshot::channel();
    drop(gone);
    bench.send(1, publication(&group("moon"), "to nobody", Recipient::Caller(caller)));
    let offset = |answer| match bench.answer(answer) {
        Ok(Accepted::At(offset)) => offset,
        other => panic!("{other:?}"),
    };
    let offsets: Vec<_> = answers.into_iter().map(offset).collect();
    assert!(offsets.is_sorted_by(|a, b| a < b), "{offsets:?}");
    bench.publish(1, &group("moon"), "and the next").expect("accepted");
}

/// Messages to a group that nobody is a member of, and their receipts.
fn with_receipts(count: usize) -> (Vec<crate::model::broker::Publication>, Vec<Answer>) {
    let one = |number: usize| {
        let (caller, answer) = oneshot::channel();
        (publication(&group("moon"), &number.to_string(), Recipient::Caller(caller)), answer)
    };
    (0..count).map(one).unzip()
}

fn messages_count_from_when_a_subscription_stands(bench: &Bench) {
    for round in 0..50 {
        let channel = group(&format!("round {round}"));
        let seats = bench.seats();
        bench.publish(0, &channel, "before anybody").expect("accepted");
        let first = seats[round % seats.len()];
        bench.join(first, &channel);
        bench.publish(round, &channel, "to the first").expect("accepted");
        assert_eq!(bench.heard(&channel, &[first]), ["to the first"]);
        // The second of the same node, or the first of another.
        let second = seats[(round * 2 + 1) % seats.len()];
        bench.join(second, &channel);
        bench.publish(round + 1, &channel, "to both").expect("accepted");
        let members = if first == second { vec![first] } else { vec![first, second] };
        assert_eq!(bench.heard(&channel, &members), ["to both"]);
    }
}

fn unsubscribing_ends_only_ones_own_interest(bench: &Bench) {
    let channel = group("moon");
    let mut members = bench.seats();
    for seat in &members {
        bench.join(*seat, &channel);
    }
    while let Some(left) = members.pop() {
        bench.unsubscribe(left, &channel);
        let text = format!("without {left}");
        bench.publish(left, &channel, &text).expect("accepted");
        let expected = if members.is_empty() { vec![] } else { vec![text] };
        assert_eq!(bench.heard(&channel, &members), expected);
    }
    bench.join(1, &channel);
    bench.publish(0, &channel, "again").expect("accepted");
    assert_eq!(bench.heard(&channel, &[1]), ["again"], "nothing of what was said in between");
    bench.unsubscribe(2, &channel);
    bench.unsubscribe(1, &group("another"));
    bench.publish(0, &channel, "still").expect("accepted");
    assert_eq!(bench.heard(&channel, &[1]), ["still"], "who is no member cannot leave");
}

/// The first message of a channel comes while its place is still being looked for.
fn joining_again_at_once_doubles_nothing(bench: &Bench) {
    let member = *bench.seats().last().expect("a seat");
    for round in 0..300 {
        let channel = group(&format!("again {round}"));
        bench.subscribe(member, &channel);
        bench.unsubscribe(member, &channel);
        bench.join(member, &channel);
        bench.publish(0, &channel, "once").expect("accepted");
        assert_eq!(bench.heard(&channel, &[member]), ["once"], "round {round}");
    }
}

fn interest_is_what_subscriptions_say(bench: &Bench) {
    let seats = bench.seats().len();
    let steps = prop::collection::vec((any::<bool>(), 0..seats, 0..3_u8), 0..60);
    let mut runner = TestRunner::new(Cases::with_cases(24));
    let case = std::cell::Cell::new(0);
    let result = runner.run(&steps, |steps| {
        case.set(case.get() + 1);
        let channel = |number: u8| group(&format!("{} {number}", case.get()));
        let (mut model, mut pending) = (BTreeSet::new(), BTreeMap::new());
        for (subscribe, seat, number) in steps {
            pending.remove(&(seat, number));
            if subscribe {
                match bench.subscribe(seat, &channel(number)) {
                    Standing::Confirmed => {}
                    Standing::Pending(wait) => drop(pending.insert((seat, number), wait)),
                    Standing::Refused => panic!("refused"),
                }
                model.insert((seat, number));
            } else {
                bench.unsubscribe(seat, &channel(number));
                model.remove(&(seat, number));
            }
        }
        for ((seat, _), wait) in pending {
            assert_eq!(bench.subscribed(seat, wait), Ok(()));
        }
        for number in 0..3 {
            bench.publish(usize::from(number), &channel(number), "x").expect("accepted");
            let members: Vec<usize> =
                (0..seats).filter(|seat| model.contains(&(*seat, number))).collect();
            let expected = if members.is_empty() { vec![] } else { vec!["x"] };
            prop_assert_eq!(bench.heard(&channel(number), &members), expected);
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

/// What only a node that is alone can promise: no wait, and one order over all channels.
#[test]
fn memory_broker_is_immediate() {
    let bench = Bench::memory();
    let texts = |seat: usize| -> Vec<String> {
        bench.take_inboxes()[seat].messages.split_off(0).into_iter().map(|(_, text)| text).collect()
    };
    assert_eq!(bench.subscribe(1, &group("moon")), Standing::Confirmed);
    assert_eq!(bench.subscribe(2, &Channel::User("moon".into())), Standing::Confirmed);
    for channel in [group("moon"), Channel::User("moon".into()), Channel::Broadcast, group("sun")] {
        let (caller, mut answer) = oneshot::channel();
        bench.send(0, publication(&channel, &format!("{channel:?}"), Recipient::Caller(caller)));
        answer.try_recv().expect("answered at once").expect("accepted");
    }
    let all = format!("{:?}", Channel::Broadcast);
    assert_eq!(texts(0), [all.as_str()]);
    assert_eq!(texts(1), [format!("{:?}", group("moon")), all.clone()]);
    assert_eq!(texts(2), [format!("{:?}", Channel::User("moon".into())), all]);
    bench.unsubscribe(1, &group("moon"));
    bench.publish(0, &group("moon"), "to nobody any more").expect("accepted");
    assert_eq!(texts(1), [""; 0]);
}

/// Inboxes are bounded in bytes too, not only in messages.
#[test]
fn memory_broker_refuses_large_messages_when_queues_are_full() {
    let bench = Bench::memory();
    let large = "x".repeat(128 << 10);
    let mut accepted = 0;
    loop {
        // Nothing may be taken out of the inboxes meanwhile, so the answer is not waited for.
        let (caller, mut answer) = oneshot::channel();
        bench.send(0, publication(&Channel::Broadcast, &large, Recipient::Caller(caller)));
        match answer.try_recv().expect("answered at once") {
            Ok(_) => accepted += 1,
            Err(error) => break assert_eq!(error, PublishError::Overload),
        }
        assert!(accepted < 10_000, "an inbox without a bound in bytes");
    }
    let (id, request) = (ConnectionId::mint(NodeTag::random()), RequestId::mint());
    bench.send(0, publication(&Channel::Broadcast, "refused", Recipient::Sender(id, request)));
    let mut told = Vec::new();
    for heard in bench.take_inboxes().iter_mut() {
        assert_eq!(
            heard.messages.split_off(0).len(),
            accepted,
            "what was accepted, and nothing else"
        );
        told.append(&mut heard.failed);
    }
    assert_eq!(told, [(id, request)]);
    bench.publish(0, &Channel::Broadcast, "again").expect("there is room again");
}

/// Redis goes away in the midst of publishing, and is another, empty one afterwards.
#[test]
fn redis_broker_answers_every_receipt_while_redis_is_killed() {
    let mut bench = Bench::redis();
    for round in 0..3 {
        let (publications, under_way) = with_receipts(3_000);
        bench.send_all(round, publications);
        bench.redis.as_mut().expect("a server").kill();
        for answer in under_way {
            assert!(matches!(bench.answer(answer), Ok(_) | Err(PublishError::Unavailable)));
        }
        let (id, request) = (ConnectionId::mint(NodeTag::random()), RequestId::mint());
        for node in 0..2 {
            assert_eq!(
                bench.publish(node, &Channel::Broadcast, "refused"),
                Err(PublishError::Unavailable)
            );
            bench.send(
                node,
                publication(&Channel::Broadcast, "refused", Recipient::Sender(id, request)),
            );
        }
        bench.until("both senders are told", |heard| {
            heard
                .iter()
                .flat_map(|heard| &heard.failed)
                .filter(|failed| **failed == (id, request))
                .count()
                == 2
        });
        bench.redis.as_mut().expect("a server").restart();
        let back = publish_when_back(&bench, "back");
        let texts = bench.heard(&Channel::Broadcast, &bench.seats());
        assert_eq!(texts, [back], "round {round}: what was refused reached nobody");
    }
}

/// A message that Redis takes as soon as it is there again.
fn publish_when_back(bench: &Bench, text: &str) -> String {
    let mut attempts = 0;
    while let Err(error) = bench.publish(attempts, &Channel::Broadcast, text) {
        assert_eq!(error, PublishError::Unavailable);
        attempts += 1;
        assert!(attempts < 10_000, "Redis is back, and is not used");
    }
    text.to_owned()
}

/// It hangs: connections stay open, and nothing is answered.
#[test]
fn redis_broker_answers_every_receipt_while_redis_hangs() {
    let bench = Bench::redis();
    let redis = bench.redis.as_ref().expect("a server");
    let (publications, answers) = with_receipts(1_000);
    redis.signal(Signal::STOP);
    bench.send_all(0, publications);
    for answer in answers {
        assert_eq!(bench.answer(answer), Err(PublishError::Unavailable));
    }
    redis.signal(Signal::CONT);
    publish_when_back(&bench, "back");
    bench.until("everybody hears again", |heard| {
        heard.iter().all(|heard| heard.messages.iter().any(|(_, text)| text == "back"))
    });
}

#[test]
fn redis_broker_says_when_a_subscription_will_not_stand() {
    let mut bench = Bench::redis();
    bench.redis.as_mut().expect("a server").kill();
    for seat in bench.seats() {
        match bench.subscribe(seat, &group("moon")) {
            Standing::Refused => {}
            Standing::Pending(wait) => {
                assert_eq!(bench.subscribed(seat, wait), Err(PublishError::Unavailable));
                bench.unsubscribe(seat, &group("moon"));
            }
            Standing::Confirmed => panic!("nobody can have confirmed it"),
        }
    }
    bench.redis.as_mut().expect("a server").restart();
    publish_when_back(&bench, "back");
    bench.join(1, &group("moon"));
    bench.publish(0, &group("moon"), "to the one who asked again").expect("accepted");
    assert_eq!(bench.heard(&group("moon"), &[1]), ["to the one who asked again"]);
}

/// Subscriber connections end again and again while messages come: none is lost, none comes twice.
#[test]
fn redis_broker_repairs_what_a_subscriber_missed() {
    let bench = Bench::redis();
    let redis = bench.redis.as_ref().expect("a server");
    bench.join(1, &group("moon"));
    bench.join(SHARDS + 1, &group("moon"));
    let texts: Vec<String> = (0..2_000).map(|number| number.to_string()).collect();
    for (number, text) in texts.iter().enumerate() {
        bench.publish(number, &Channel::Broadcast, text).expect("accepted");
        bench.publish(number + 1, &group("moon"), text).expect("accepted");
        if number % 200 == 100 {
            redis.ask("CLIENT KILL TYPE pubsub").expect("Redis is there");
        }
    }
    assert_eq!(bench.heard(&Channel::Broadcast, &bench.seats()), texts);
    assert_eq!(bench.heard(&group("moon"), &[1, SHARDS + 1]), texts);
}
