//! The arithmetic of a drain.

use proptest::prelude::*;

use super::*;

const RENEWAL: Duration = Duration::from_secs(3);

fn ready(connections: usize, max_connections: usize, handshake_rate: usize) -> Lease {
    let (name, phase, renewals) = ("one".to_owned(), Phase::Ready, None);
    Lease { name, connections, max_connections, handshake_rate, phase, renewals }
}

fn draining(connections: usize) -> Lease {
    Lease { phase: Phase::Draining, ..ready(connections, 100_000, 2_000) }
}

fn capacity(others: &[Lease]) -> Capacity {
    Capacity::of(others, RENEWAL).expect("somebody stays")
}

#[test]
fn those_who_stay_offer_half_of_their_handshakes() {
    let others = [ready(10, 100_000, 2_000), ready(99_000, 100_000, 100)];
    assert_eq!(capacity(&others), Capacity { rate: 1_050.0, places: 100_990 });
}

#[test]
fn who_is_nearly_full_offers_no_more_than_its_places_until_the_next_look() {
    assert_eq!(capacity(&[ready(960, 1_000, 2_000)]), Capacity { rate: 10.0, places: 40 });
    assert_eq!(capacity(&[ready(1_000, 1_000, 2_000)]), Capacity { rate: 0.0, places: 0 });
    assert_eq!(
        capacity(&[ready(1_001, 1_000, 2_000)]),
        Capacity { rate: 0.0, places: 0 },
        "a late handshake"
    );
}

#[test]
fn nodes_that_drain_together_share_what_there_is() {
    let others = [ready(0, 1_000, 200), draining(500), draining(0), draining(1)];
    assert_eq!(capacity(&others), Capacity { rate: 100.0 / 3.0, places: 333 });
}

#[test]
fn who_starts_or_drains_offers_nothing() {
    let starting = Lease { phase: Phase::Starting, ..ready(0, 1_000, 200) };
    assert_eq!(Capacity::of(&[draining(5), starting], RENEWAL), None);
    assert_eq!(Capacity::of(&[], RENEWAL), None);
}

#[test]
fn a_window_that_is_too_short_forces_the_rate() {
    let plan = Plan::new(3_000, Duration::from_secs(30), 50.0);
    assert_eq!((plan.within, plan.needed), (Duration::from_secs(30), Duration::from_secs(60)));
    assert_eq!((plan.rate(), plan.is_forced()), (100.0, true));
    let plan = Plan::new(1_500, Duration::from_secs(30), 50.0);
    assert_eq!(
        (plan.within, plan.rate(), plan.is_forced()),
        (Duration::from_secs(30), 50.0, false)
    );
}

#[test]
fn nobody_who_can_take_them_leaves_the_whole_window() {
    let plan = Plan::new(300, Duration::from_secs(30), 0.0);
    assert_eq!((plan.within, plan.rate(), plan.is_forced()), (Duration::from_secs(30), 10.0, true));
}

fn leases() -> impl Strategy<Value = Vec<Lease>> {
    let phase = prop_oneof![Just(Phase::Starting), Just(Phase::Ready), Just(Phase::Draining)];
    let lease = (0..200_000_usize, 1..200_000_usize, 1..10_000_usize, phase).prop_map(
        |(connections, places, rate, phase)| Lease { phase, ..ready(connections, places, rate) },
    );
    prop::collection::vec(lease, 0..12)
}

proptest! {
    #[test]
    fn never_more_than_half_of_what_they_let_in_nor_than_they_have_room_for(others in leases()) {
        let Some(capacity) = Capacity::of(&others, RENEWAL) else {
            prop_assert!(others.iter().all(|lease| lease.phase != Phase::Ready));
            return Ok(());
        };
        let staying = || others.iter().filter(|lease| lease.phase == Phase::Ready);
        let handshakes: usize = staying().map(|lease| lease.handshake_rate).sum();
        let places: usize = staying().map(|lease| lease.max_connections.saturating_sub(lease.connections)).sum();
        prop_assert!(capacity.rate <= handshakes as f64 / 2.0 + 1e-6);
        prop_assert!(capacity.rate * (RENEWAL + LOOK).as_secs_f64() <= places as f64 + 1e-6);
        prop_assert!(capacity.places <= places);
    }

    #[test]
    fn a_plan_moves_ends_in_time_and_is_faster_than_asked_only_if_it_must_be(
        left in 1..1_000_000_usize,
        time in 0..3_600_000_u64,
        rate in prop_oneof![Just(0.0), 0.001..10_000.0_f64],
    ) {
        let time = Duration::from_millis(time);
        let plan = Plan::new(left, time, rate);
        prop_assert!(plan.rate() > 0.0);
        prop_assert!(plan.within <= time);
        if plan.is_forced() {
            prop_assert_eq!(plan.within, time);
        } else {
            // Within a nanosecond of what was asked.
            prop_assert!((plan.rate() - rate).abs() <= rate * 0.001 || plan.within <= Duration::from_millis(1));
        }
    }

    #[test]
    fn whatever_the_others_say_on_the_way_the_window_is_kept(
        count in 1..50_000_usize,
        window in 1..120_u64,
        rates in prop::collection::vec(0.0..500.0_f64, 1..130),
    ) {
        let (mut left, mut elapsed) = (count as u128, Duration::ZERO);
        let window = Duration::from_secs(window);
        for rate in rates.iter().cycle() {
            let plan = Plan::new(usize::try_from(left).expect("small"), window - elapsed, *rate);
            let step = LOOK.min(plan.within);
            left -= left * step.as_nanos() / plan.within.as_nanos();
            elapsed += step;
            if left == 0 {
                break;
            }
            prop_assert!(elapsed < window, "{left} are left");
        }
    }
}
