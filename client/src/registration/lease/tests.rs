//! The lease's life in numbers.

use super::*;
use crate::runtime::clock;

const INTERVAL: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

fn grant(lease_id: u64, created: u64) -> Grant {
    Grant { lease_id, heartbeat_interval: INTERVAL, origin: ("h".into(), created) }
}

/// One that is to be granted.
fn wanted(now: Instant) -> Lease {
    Lease::new(now, Backoff::new(Duration::from_millis(50), Duration::from_secs(5)))
}

fn lease(now: Instant) -> Lease {
    let mut lease = wanted(now);
    lease.granted(grant(1, 10), now);
    lease
}

fn held(lease: &Lease) -> u64 {
    lease.grant.as_ref().expect("granted").lease_id
}

/// A lease whose first heartbeat was answered at `now`.
fn renewed(now: Instant) -> Lease {
    let mut lease = lease(now);
    lease.beaten(now);
    lease.answered(&[], now);
    lease
}

#[test]
fn the_first_heartbeat_goes_out_at_once() {
    let now = clock::now();
    assert_eq!(lease(now).step(now), Step::Open(1));
}

#[test]
fn what_was_never_registered_is_registered_until_it_is() {
    let now = clock::now();
    let mut lease = wanted(now);
    assert_eq!((lease.id(), lease.step(now)), (None, Step::Register));
    for attempt in 0..10_u32 {
        lease.unreachable(now, 1.0, None);
        let Step::Wait(until) = lease.step(now) else { panic!("{:?}", lease.step(now)) };
        let wait = Duration::from_millis(50) * 2_u32.pow(attempt);
        assert!(until >= now + wait.min(SECOND * 5), "{attempt}: {:?}", until - now);
    }
    lease.granted(grant(1, 10), now);
    assert_eq!((lease.id(), lease.step(now)), (Some(1), Step::Open(1)));
    // And the first stream that breaks is opened again as soon as if nothing had failed before.
    lease.broken(now, 1.0, None);
    assert_eq!(lease.step(now), Step::Wait(now + Duration::from_millis(50)));
}

#[test]
fn what_is_refused_from_the_first_is_repeated_slowly_and_at_once_when_it_changed() {
    let now = clock::now();
    let mut lease = wanted(now);
    lease.refuse(now, 1.0);
    assert_eq!(lease.step(now), Step::Wait(now + SECOND * 5));
    lease.amended(now);
    assert_eq!(lease.step(now), Step::Register);
}

#[test]
fn heartbeats_keep_their_interval_whenever_answers_come() {
    let now = clock::now();
    let mut lease = lease(now);
    lease.beaten(now);
    lease.answered(&[], now + SECOND * 2);
    assert_eq!(lease.step(now + SECOND * 2), Step::Wait(now + INTERVAL));
    assert_eq!(lease.step(now + INTERVAL), Step::Beat(1));
}

#[test]
fn a_heartbeat_without_answer_breaks_the_stream() {
    let now = clock::now();
    let mut lease = renewed(now);
    let beat = now + INTERVAL;
    lease.beaten(beat);
    assert_eq!(lease.step(beat), Step::Wait(beat + INTERVAL));
    assert_eq!(lease.step(beat + INTERVAL), Step::Break);
    lease.broken(beat + INTERVAL, 0.0, None);
    assert_eq!(lease.step(beat + INTERVAL), Step::Open(1));
}

#[test]
fn a_broken_stream_is_opened_again_with_backoff() {
    let now = clock::now();
    let mut lease = renewed(now);
    lease.broken(now, 1.0, None);
    assert_eq!(lease.step(now), Step::Wait(now + Duration::from_millis(50)));
    lease.broken(now, 1.0, None);
    assert_eq!(lease.step(now), Step::Wait(now + Duration::from_millis(100)));
    lease.broken(now, 0.0, Some(SECOND));
    assert_eq!(lease.step(now), Step::Wait(now + SECOND));
    // A stream that lasts starts it over.
    for _ in 0..2 {
        lease.beaten(now);
        lease.answered(&[], now);
    }
    lease.broken(now, 1.0, None);
    assert_eq!(lease.step(now), Step::Wait(now + Duration::from_millis(50)));
}

#[test]
fn after_an_attempt_that_took_long_the_next_begins_at_once() {
    let now = clock::now();
    let mut lease = renewed(now);
    // The registry stands still: it takes heartbeats and streams, and answers none.
    lease.beaten(now + INTERVAL);
    let mut at = now + INTERVAL * 2;
    for _ in 0..20 {
        assert_eq!(
            lease.step(at),
            if at == now + INTERVAL * 2 { Step::Break } else { Step::Open(1) }
        );
        lease.broken(at, 1.0, None);
        assert_eq!(lease.step(at), Step::Open(1));
        at += INTERVAL;
    }
    // One that fails at once leaves the registry alone for a while.
    lease.broken(at, 1.0, None);
    lease.broken(at, 1.0, None);
    assert_eq!(lease.step(at), Step::Wait(at + INTERVAL / 2));
}

#[test]
fn attempts_come_sooner_than_heartbeats() {
    let now = clock::now();
    let mut lease = renewed(now);
    let mut at = now;
    for _ in 0..20 {
        lease.broken(at, 1.0, None);
        let Step::Wait(until) = lease.step(at) else { panic!("{:?}", lease.step(at)) };
        assert!(until <= at + INTERVAL / 2, "{:?}", until - at);
        at = until;
    }
    lease.lose(1, at);
    lease.unreachable(at, 1.0, None);
    assert_eq!(lease.step(at), Step::Wait(at + INTERVAL / 2));
}

#[test]
fn an_unknown_lease_is_registered_again_at_once_after_a_time_without_connection() {
    let now = clock::now();
    let mut lease = renewed(now);
    lease.broken(now, 0.0, None);
    lease.beaten(now);
    lease.answered(&[1], now);
    assert_eq!((lease.id(), lease.step(now)), (None, Step::Register));
    lease.granted(grant(2, 20), now);
    assert_eq!(lease.id(), Some(2));
    assert_eq!(lease.step(now), Step::Beat(2), "the stream knows the new lease at once");
}

#[test]
fn a_lease_that_is_lost_while_it_is_renewed_is_not_taken_back_blindly() {
    let now = clock::now();
    let mut by_heartbeat = renewed(now);
    by_heartbeat.beaten(now + INTERVAL);
    by_heartbeat.answered(&[1], now + INTERVAL);
    let mut by_update = renewed(now);
    by_update.doubt(1, now + INTERVAL);
    for mut lease in [by_heartbeat, by_update] {
        let now = now + INTERVAL;
        assert_eq!((lease.id(), lease.step(now)), (None, Step::Ask(1)));
        lease.explained(Fate::Fenced, now, 1.0);
        assert_eq!(lease.step(now), Step::Look);
        // It is looked at ever more rarely for as long as the other is there.
        let mut at = now;
        let mut waits = Vec::new();
        for look in 0..100 {
            lease.explained(Fate::HeldElsewhere, at, if look < 7 { 1.0 } else { 0.0 });
            let Step::Wait(until) = lease.step(at) else { panic!("{:?}", lease.step(at)) };
            waits.push((until - at).as_secs());
            at = until;
            assert_eq!((lease.id(), lease.step(at)), (None, Step::Look));
            lease.unreachable(at, 0.0, None);
            assert_eq!(lease.step(at), Step::Look);
        }
        assert_eq!(waits[..8], [1, 2, 4, 8, 16, 32, 60, 30]);
        assert!(waits[8..].iter().all(|wait| *wait == 30));
        // And is taken at once when the other is gone.
        lease.explained(Fate::Gone, at, 1.0);
        assert_eq!(lease.step(at), Step::Register);
        lease.granted(grant(2, 20), at);
        lease.doubt(2, at + INTERVAL);
        lease.explained(Fate::Fenced, at + INTERVAL, 1.0);
        lease.explained(Fate::HeldElsewhere, at + INTERVAL, 1.0);
        assert_eq!(lease.step(at + INTERVAL), Step::Wait(at + INTERVAL + SECOND));
    }
}

#[test]
fn other_leases_losses_are_not_ours() {
    let now = clock::now();
    let mut lease = renewed(now);
    lease.beaten(now);
    lease.answered(&[7, 8], now);
    lease.lose(7, now);
    assert_eq!(lease.id(), Some(1));
}

#[test]
fn an_answer_that_nobody_awaits_changes_nothing() {
    let now = clock::now();
    let mut lease = renewed(now);
    lease.answered(&[1], now);
    assert_eq!(lease.id(), Some(1));
}

#[test]
fn registering_again_is_repeated_with_backoff() {
    let now = clock::now();
    let mut lease = renewed(now);
    lease.lose(1, now);
    lease.unreachable(now, 1.0, None);
    assert_eq!(lease.step(now), Step::Wait(now + Duration::from_millis(50)));
    lease.unreachable(now, 0.0, Some(SECOND));
    assert_eq!(lease.step(now), Step::Wait(now + SECOND));
}

#[test]
fn a_refused_registration_is_repeated_slowly() {
    let now = clock::now();
    let mut lease = renewed(now);
    lease.lose(1, now);
    lease.refuse(now, 1.0);
    assert_eq!(lease.step(now), Step::Wait(now + SECOND * 5));
    for _ in 0..20 {
        lease.refuse(now, 1.0);
    }
    assert_eq!(lease.step(now), Step::Wait(now + SECOND * 60));
    lease.amended(now);
    assert_eq!(lease.step(now), Step::Register);
}

#[test]
fn amending_what_is_registered_hurries_nothing() {
    let now = clock::now();
    let mut lease = renewed(now);
    lease.amended(now);
    assert_eq!(lease.step(now), Step::Wait(now + INTERVAL));
}

/// Loses the lease to another process and takes it back, `times` times.
fn fight(lease: &mut Lease, now: Instant, times: u64) {
    for time in 0..times {
        lose(lease, now, Fate::Fenced, 1.0);
        lease.granted(grant(100 + time, 10), now);
    }
}

/// Loses the lease, and asks what became of it where the lease wants to know. How long it waits then
/// before it registers again.
fn lose(lease: &mut Lease, now: Instant, fate: Fate, random: f64) -> Duration {
    let id = lease.id().expect("it lives");
    lease.lose(id, now);
    if lease.step(now) == Step::Ask(id) {
        lease.explained(fate, now, random);
    }
    if lease.step(now) == Step::Look {
        lease.explained(Fate::HeldHere, now, random);
    }
    match lease.step(now) {
        Step::Register => Duration::ZERO,
        Step::Wait(until) => until - now,
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_processes_with_one_identity_do_not_fight_for_ever() {
    let now = clock::now();
    let mut lease = renewed(now);
    fight(&mut lease, now, 1);
    assert_eq!(lose(&mut lease, now, Fate::Fenced, 1.0), SECOND * 2);
    lease.granted(grant(3, 10), now);
    fight(&mut lease, now, 20);
    assert_eq!(lose(&mut lease, now, Fate::Fenced, 0.0), SECOND * 30);
}

#[test]
fn peace_ends_the_suspicion() {
    let now = clock::now();
    let mut lease = renewed(now);
    fight(&mut lease, now, 5);
    lease.lose(held(&lease), now + PEACE);
    assert_eq!(lease.step(now + PEACE), Step::Register);
}

#[test]
fn a_lease_that_nobody_took_is_no_fight_even_after_one() {
    let now = clock::now();
    let mut lease = renewed(now);
    fight(&mut lease, now, 5);
    let later = now + INTERVAL;
    assert_eq!(lose(&mut lease, later, Fate::Gone, 1.0), Duration::ZERO);
    // The fight goes on where it stopped.
    lease.granted(grant(7, 10), later);
    assert_eq!(lose(&mut lease, later + INTERVAL, Fate::Fenced, 1.0), SECOND * 32);
}

#[test]
fn a_registry_that_is_away_is_asked_about_a_lease_with_backoff() {
    let now = clock::now();
    let mut lease = renewed(now);
    fight(&mut lease, now, 1);
    lease.lose(100, now);
    assert_eq!(lease.step(now), Step::Ask(100));
    lease.unreachable(now, 1.0, None);
    let later = now + Duration::from_millis(50);
    assert_eq!(lease.step(now), Step::Wait(later));
    assert_eq!(lease.step(later), Step::Ask(100));
}

#[test]
fn a_registry_that_loses_its_memory_often_is_no_fight() {
    let mut now = clock::now();
    let mut lease = renewed(now);
    for restart in 0..20 {
        now += INTERVAL;
        lease.lose(held(&lease), now);
        assert_eq!(lease.step(now), Step::Register);
        let origin = (format!("history-{restart}"), 1);
        lease.granted(Grant { origin, ..grant(1000 + restart, 1) }, now);
    }
}

#[test]
fn any_course_of_events_ends_with_a_renewed_lease() {
    for _ in 0..200 {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut now = clock::now();
        let mut lease = lease(now);
        let mut next_lease = 2;
        for turn in 0..300 {
            // Everything goes wrong at first, then nothing does.
            let fails = turn < 200 && random.bool();
            match lease.step(now) {
                Step::Wait(until) => {
                    assert!(until > now && until <= now + SECOND * 66, "waits {:?}", until - now);
                    now = until;
                }
                Step::Ask(_) | Step::Look if fails => lease.unreachable(now, random.f64(), None),
                Step::Look => {
                    let fates = [Fate::Gone, Fate::HeldHere, Fate::HeldElsewhere];
                    let fate = fates[random.usize(..if turn < 200 { 3 } else { 2 })];
                    lease.explained(fate, now, random.f64());
                }
                Step::Ask(_) => {
                    let fate = if random.bool() { Fate::Fenced } else { Fate::Gone };
                    lease.explained(fate, now, random.f64());
                }
                Step::Register if fails => match random.bool() {
                    true => lease.unreachable(now, random.f64(), None),
                    false => lease.refuse(now, random.f64()),
                },
                Step::Register => {
                    lease.granted(grant(next_lease, random.u64(10..12)), now);
                    next_lease += 1;
                }
                Step::Break => lease.broken(now, random.f64(), None),
                Step::Open(_) if fails => lease.broken(now, random.f64(), None),
                Step::Open(id) | Step::Beat(id) => {
                    assert_eq!(lease.id(), Some(id));
                    lease.beaten(now);
                    match (fails, random.bool()) {
                        (true, true) => {}
                        (true, false) => lease.answered(&[id], now),
                        (false, _) => lease.answered(&[], now),
                    }
                }
            }
        }
        assert!(lease.id().is_some());
    }
}

#[test]
fn streams_that_break_after_one_answer_are_opened_ever_more_slowly() {
    let mut now = clock::now();
    let mut lease = lease(now);
    for attempt in 0..10_u32 {
        lease.beaten(now);
        lease.answered(&[], now);
        lease.broken(now, 1.0, None);
        let wait = (Duration::from_millis(50) * 2_u32.pow(attempt)).min(INTERVAL / 2);
        assert_eq!(lease.step(now), Step::Wait(now + wait), "attempt {attempt}");
        now += wait;
    }
    // One that lasted ends that.
    lease.beaten(now);
    lease.answered(&[], now);
    lease.beaten(now + INTERVAL);
    lease.answered(&[], now + INTERVAL);
    lease.broken(now + INTERVAL, 1.0, None);
    let soon = now + INTERVAL + Duration::from_millis(50);
    assert_eq!(lease.step(now + INTERVAL), Step::Wait(soon));
}

#[test]
fn a_registry_that_forgets_at_once_is_told_ever_more_slowly() {
    let mut now = clock::now();
    let mut lease = lease(now);
    let mut waits = Vec::new();
    for round in 1..7 {
        lease.beaten(now);
        lease.answered(&[round], now);
        if lease.step(now) == Step::Ask(round) {
            lease.explained(Fate::Gone, now, 0.0);
        }
        let Step::Wait(until) = lease.step(now) else {
            assert_eq!(lease.step(now), Step::Register);
            waits.push(Duration::ZERO);
            lease.granted(grant(round + 1, 10 + round), now);
            continue;
        };
        waits.push(until - now);
        now = until;
        lease.granted(grant(round + 1, 10 + round), now);
    }
    assert_eq!(waits, [0, 1, 2, 4, 8, 16].map(Duration::from_secs));
}
