//! Tests of the lease's state machine, with numbers for time.

use super::*;
use crate::runtime::clock;

const INTERVAL: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

fn grant(lease_id: u64, created: u64) -> Grant {
    Grant { lease_id, heartbeat_interval: INTERVAL, origin: ("h".into(), created) }
}

/// A lease that was not granted yet.
fn pending(now: Instant) -> Lease {
    Lease::new(now, Backoff::new(Duration::from_millis(50), Duration::from_secs(5)))
}

fn lease(now: Instant) -> Lease {
    let mut lease = pending(now);
    lease.granted(grant(1, 10), now);
    lease
}

fn held(lease: &Lease) -> u64 {
    lease.grant.as_ref().expect("granted").lease_id
}

/// A lease whose first heartbeat was answered at `now`.
fn renewed(now: Instant) -> Lease {
    let mut lease = lease(now);
    lease.heartbeat_sent(now);
    lease.heartbeat_answered(&[], now);
    lease
}

#[test]
fn the_first_heartbeat_goes_out_at_once() {
    let now = clock::now();
    assert_eq!(lease(now).step(now), Step::OpenStream(1));
}

#[test]
fn the_first_registration_is_retried_until_it_succeeds() {
    let now = clock::now();
    let mut lease = pending(now);
    assert_eq!((lease.id(), lease.step(now)), (None, Step::Register));
    for attempt in 0..10_u32 {
        lease.unreachable(now, 1.0, None);
        let Step::Wait(until) = lease.step(now) else { panic!("{:?}", lease.step(now)) };
        let wait = Duration::from_millis(50) * 2_u32.pow(attempt);
        assert!(until >= now + wait.min(SECOND * 5), "{attempt}: {:?}", until - now);
    }
    lease.granted(grant(1, 10), now);
    assert_eq!((lease.id(), lease.step(now)), (Some(1), Step::OpenStream(1)));
    // The first stream that fails is opened again as soon as if nothing had failed before.
    lease.stream_failed(now, 1.0, None);
    assert_eq!(lease.step(now), Step::Wait(now + Duration::from_millis(50)));
}

#[test]
fn a_refused_first_registration_is_retried_slowly_and_at_once_after_a_change() {
    let now = clock::now();
    let mut lease = pending(now);
    lease.refused(now, 1.0);
    assert_eq!(lease.step(now), Step::Wait(now + SECOND * 5));
    lease.desired_changed(now);
    assert_eq!(lease.step(now), Step::Register);
}

#[test]
fn heartbeats_keep_their_interval_whenever_responses_come() {
    let now = clock::now();
    let mut lease = lease(now);
    lease.heartbeat_sent(now);
    lease.heartbeat_answered(&[], now + SECOND * 2);
    assert_eq!(lease.step(now + SECOND * 2), Step::Wait(now + INTERVAL));
    assert_eq!(lease.step(now + INTERVAL), Step::Heartbeat(1));
}

#[test]
fn a_heartbeat_without_response_fails_the_stream() {
    let now = clock::now();
    let mut lease = renewed(now);
    let beat = now + INTERVAL;
    lease.heartbeat_sent(beat);
    assert_eq!(lease.step(beat), Step::Wait(beat + INTERVAL));
    assert_eq!(lease.step(beat + INTERVAL), Step::FailStream);
    lease.stream_failed(beat + INTERVAL, 0.0, None);
    assert_eq!(lease.step(beat + INTERVAL), Step::OpenStream(1));
}

#[test]
fn a_failed_stream_is_opened_again_with_backoff() {
    let now = clock::now();
    let mut lease = renewed(now);
    lease.stream_failed(now, 1.0, None);
    assert_eq!(lease.step(now), Step::Wait(now + Duration::from_millis(50)));
    lease.stream_failed(now, 1.0, None);
    assert_eq!(lease.step(now), Step::Wait(now + Duration::from_millis(100)));
    lease.stream_failed(now, 0.0, Some(SECOND));
    assert_eq!(lease.step(now), Step::Wait(now + SECOND));
    // A stream that lasts resets it.
    for _ in 0..2 {
        lease.heartbeat_sent(now);
        lease.heartbeat_answered(&[], now);
    }
    lease.stream_failed(now, 1.0, None);
    assert_eq!(lease.step(now), Step::Wait(now + Duration::from_millis(50)));
}

#[test]
fn after_a_long_attempt_the_next_starts_at_once() {
    let now = clock::now();
    let mut lease = renewed(now);
    // The registry is suspended: it accepts heartbeats and streams, and does not respond.
    lease.heartbeat_sent(now + INTERVAL);
    let mut at = now + INTERVAL * 2;
    for _ in 0..20 {
        assert_eq!(
            lease.step(at),
            if at == now + INTERVAL * 2 { Step::FailStream } else { Step::OpenStream(1) }
        );
        lease.stream_failed(at, 1.0, None);
        assert_eq!(lease.step(at), Step::OpenStream(1));
        at += INTERVAL;
    }
    // After an attempt that fails at once there is a delay.
    lease.stream_failed(at, 1.0, None);
    lease.stream_failed(at, 1.0, None);
    assert_eq!(lease.step(at), Step::Wait(at + INTERVAL / 2));
}

#[test]
fn attempts_come_more_often_than_heartbeats() {
    let now = clock::now();
    let mut lease = renewed(now);
    let mut at = now;
    for _ in 0..20 {
        lease.stream_failed(at, 1.0, None);
        let Step::Wait(until) = lease.step(at) else { panic!("{:?}", lease.step(at)) };
        assert!(until <= at + INTERVAL / 2, "{:?}", until - at);
        at = until;
    }
    lease.mark_lost_while_away(1, at);
    lease.unreachable(at, 1.0, None);
    assert_eq!(lease.step(at), Step::Wait(at + INTERVAL / 2));
}

#[test]
fn an_unknown_lease_is_registered_again_at_once_after_a_disconnect() {
    let now = clock::now();
    let mut lease = renewed(now);
    lease.stream_failed(now, 0.0, None);
    lease.heartbeat_sent(now);
    lease.heartbeat_answered(&[1], now);
    assert_eq!((lease.id(), lease.step(now)), (None, Step::Register));
    lease.granted(grant(2, 20), now);
    assert_eq!(lease.id(), Some(2));
    assert_eq!(lease.step(now), Step::Heartbeat(2), "the stream renews the new lease at once");
}

#[test]
fn a_lease_lost_while_it_is_renewed_is_queried_first() {
    let now = clock::now();
    let mut by_heartbeat = renewed(now);
    by_heartbeat.heartbeat_sent(now + INTERVAL);
    by_heartbeat.heartbeat_answered(&[1], now + INTERVAL);
    let mut by_update = renewed(now);
    by_update.mark_lost(1, now + INTERVAL);
    for mut lease in [by_heartbeat, by_update] {
        let now = now + INTERVAL;
        assert_eq!((lease.id(), lease.step(now)), (None, Step::QueryLease(1)));
        lease.loss_explained(LossCause::Fenced, now, 1.0);
        assert_eq!(lease.step(now), Step::FindHolder);
        // Lookups become rarer while the other process is there.
        let mut at = now;
        let mut waits = Vec::new();
        for look in 0..100 {
            lease.loss_explained(LossCause::HeldElsewhere, at, if look < 7 { 1.0 } else { 0.0 });
            let Step::Wait(until) = lease.step(at) else { panic!("{:?}", lease.step(at)) };
            waits.push((until - at).as_secs());
            at = until;
            assert_eq!((lease.id(), lease.step(at)), (None, Step::FindHolder));
            lease.unreachable(at, 0.0, None);
            assert_eq!(lease.step(at), Step::FindHolder);
        }
        assert_eq!(waits[..8], [1, 2, 4, 8, 16, 32, 60, 30]);
        assert!(waits[8..].iter().all(|wait| *wait == 30));
        // The identity is registered at once when the other process is gone.
        lease.loss_explained(LossCause::NotFound, at, 1.0);
        assert_eq!(lease.step(at), Step::Register);
        lease.granted(grant(2, 20), at);
        lease.mark_lost(2, at + INTERVAL);
        lease.loss_explained(LossCause::Fenced, at + INTERVAL, 1.0);
        lease.loss_explained(LossCause::HeldElsewhere, at + INTERVAL, 1.0);
        assert_eq!(lease.step(at + INTERVAL), Step::Wait(at + INTERVAL + SECOND));
    }
}

#[test]
fn losses_of_other_leases_are_ignored() {
    let now = clock::now();
    let mut lease = renewed(now);
    lease.heartbeat_sent(now);
    lease.heartbeat_answered(&[7, 8], now);
    lease.mark_lost_while_away(7, now);
    assert_eq!(lease.id(), Some(1));
}

#[test]
fn an_unexpected_response_changes_nothing() {
    let now = clock::now();
    let mut lease = renewed(now);
    lease.heartbeat_answered(&[1], now);
    assert_eq!(lease.id(), Some(1));
}

#[test]
fn registering_again_is_retried_with_backoff() {
    let now = clock::now();
    let mut lease = renewed(now);
    lease.mark_lost_while_away(1, now);
    lease.unreachable(now, 1.0, None);
    assert_eq!(lease.step(now), Step::Wait(now + Duration::from_millis(50)));
    lease.unreachable(now, 0.0, Some(SECOND));
    assert_eq!(lease.step(now), Step::Wait(now + SECOND));
}

#[test]
fn a_refused_registration_is_retried_slowly() {
    let now = clock::now();
    let mut lease = renewed(now);
    lease.mark_lost_while_away(1, now);
    lease.refused(now, 1.0);
    assert_eq!(lease.step(now), Step::Wait(now + SECOND * 5));
    for _ in 0..20 {
        lease.refused(now, 1.0);
    }
    assert_eq!(lease.step(now), Step::Wait(now + SECOND * 60));
    lease.desired_changed(now);
    assert_eq!(lease.step(now), Step::Register);
}

#[test]
fn an_update_does_not_speed_up_a_registration_that_was_not_refused() {
    let now = clock::now();
    let mut lease = renewed(now);
    lease.desired_changed(now);
    assert_eq!(lease.step(now), Step::Wait(now + INTERVAL));
}

/// Loses the lease to another process and takes it back, `times` times.
fn contend(lease: &mut Lease, now: Instant, times: u64) {
    for time in 0..times {
        lose(lease, now, LossCause::Fenced, 1.0);
        lease.granted(grant(100 + time, 10), now);
    }
}

/// Loses the lease, and answers its queries. Returns the delay before it registers again.
fn lose(lease: &mut Lease, now: Instant, cause: LossCause, random: f64) -> Duration {
    let id = lease.id().expect("it lives");
    lease.mark_lost_while_away(id, now);
    if lease.step(now) == Step::QueryLease(id) {
        lease.loss_explained(cause, now, random);
    }
    if lease.step(now) == Step::FindHolder {
        lease.loss_explained(LossCause::HeldAtSameAddress, now, random);
    }
    match lease.step(now) {
        Step::Register => Duration::ZERO,
        Step::Wait(until) => until - now,
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_processes_with_one_identity_slow_down() {
    let now = clock::now();
    let mut lease = renewed(now);
    contend(&mut lease, now, 1);
    assert_eq!(lose(&mut lease, now, LossCause::Fenced, 1.0), SECOND * 2);
    lease.granted(grant(3, 10), now);
    contend(&mut lease, now, 20);
    assert_eq!(lose(&mut lease, now, LossCause::Fenced, 0.0), SECOND * 30);
}

#[test]
fn a_long_lease_ends_the_conflict() {
    let now = clock::now();
    let mut lease = renewed(now);
    contend(&mut lease, now, 5);
    lease.mark_lost_while_away(held(&lease), now + CONFLICT_WINDOW);
    assert_eq!(lease.step(now + CONFLICT_WINDOW), Step::Register);
}

#[test]
fn an_expired_lease_is_no_conflict_even_after_one() {
    let now = clock::now();
    let mut lease = renewed(now);
    contend(&mut lease, now, 5);
    let later = now + INTERVAL;
    assert_eq!(lose(&mut lease, later, LossCause::NotFound, 1.0), Duration::ZERO);
    // The conflict continues with the same delay.
    lease.granted(grant(7, 10), later);
    assert_eq!(lose(&mut lease, later + INTERVAL, LossCause::Fenced, 1.0), SECOND * 32);
}

#[test]
fn an_unreachable_registry_is_queried_about_a_lease_with_backoff() {
    let now = clock::now();
    let mut lease = renewed(now);
    contend(&mut lease, now, 1);
    lease.mark_lost_while_away(100, now);
    assert_eq!(lease.step(now), Step::QueryLease(100));
    lease.unreachable(now, 1.0, None);
    let later = now + Duration::from_millis(50);
    assert_eq!(lease.step(now), Step::Wait(later));
    assert_eq!(lease.step(later), Step::QueryLease(100));
}

#[test]
fn a_registry_that_loses_its_state_often_is_no_conflict() {
    let mut now = clock::now();
    let mut lease = renewed(now);
    for restart in 0..20 {
        now += INTERVAL;
        lease.mark_lost_while_away(held(&lease), now);
        assert_eq!(lease.step(now), Step::Register);
        let origin = (format!("history-{restart}"), 1);
        lease.granted(Grant { origin, ..grant(1000 + restart, 1) }, now);
    }
}

#[test]
fn any_sequence_of_events_ends_with_a_renewed_lease() {
    for _ in 0..200 {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut now = clock::now();
        let mut lease = lease(now);
        let mut next_lease = 2;
        for turn in 0..300 {
            // Any step fails at first, then none.
            let fails = turn < 200 && random.bool();
            match lease.step(now) {
                Step::Wait(until) => {
                    assert!(until > now && until <= now + SECOND * 66, "waits {:?}", until - now);
                    now = until;
                }
                Step::QueryLease(_) | Step::FindHolder if fails => {
                    lease.unreachable(now, random.f64(), None);
                }
                Step::FindHolder => {
                    let causes = [
                        LossCause::NotFound,
                        LossCause::HeldAtSameAddress,
                        LossCause::HeldElsewhere,
                    ];
                    let cause = causes[random.usize(..if turn < 200 { 3 } else { 2 })];
                    lease.loss_explained(cause, now, random.f64());
                }
                Step::QueryLease(_) => {
                    let cause = if random.bool() { LossCause::Fenced } else { LossCause::NotFound };
                    lease.loss_explained(cause, now, random.f64());
                }
                Step::Register if fails => match random.bool() {
                    true => lease.unreachable(now, random.f64(), None),
                    false => lease.refused(now, random.f64()),
                },
                Step::Register => {
                    lease.granted(grant(next_lease, random.u64(10..12)), now);
                    next_lease += 1;
                }
                Step::FailStream => lease.stream_failed(now, random.f64(), None),
                Step::OpenStream(_) if fails => lease.stream_failed(now, random.f64(), None),
                Step::OpenStream(id) | Step::Heartbeat(id) => {
                    assert_eq!(lease.id(), Some(id));
                    lease.heartbeat_sent(now);
                    match (fails, random.bool()) {
                        (true, true) => {}
                        (true, false) => lease.heartbeat_answered(&[id], now),
                        (false, _) => lease.heartbeat_answered(&[], now),
                    }
                }
            }
        }
        assert!(lease.id().is_some());
    }
}

#[test]
fn streams_that_fail_after_one_response_are_opened_ever_more_slowly() {
    let mut now = clock::now();
    let mut lease = lease(now);
    for attempt in 0..10_u32 {
        lease.heartbeat_sent(now);
        lease.heartbeat_answered(&[], now);
        lease.stream_failed(now, 1.0, None);
        let wait = (Duration::from_millis(50) * 2_u32.pow(attempt)).min(INTERVAL / 2);
        assert_eq!(lease.step(now), Step::Wait(now + wait), "attempt {attempt}");
        now += wait;
    }
    // A stream that lasted ends that.
    lease.heartbeat_sent(now);
    lease.heartbeat_answered(&[], now);
    lease.heartbeat_sent(now + INTERVAL);
    lease.heartbeat_answered(&[], now + INTERVAL);
    lease.stream_failed(now + INTERVAL, 1.0, None);
    let soon = now + INTERVAL + Duration::from_millis(50);
    assert_eq!(lease.step(now + INTERVAL), Step::Wait(soon));
}

#[test]
fn a_registry_that_loses_leases_at_once_gets_registrations_ever_more_slowly() {
    let mut now = clock::now();
    let mut lease = lease(now);
    let mut waits = Vec::new();
    for round in 1..7 {
        lease.heartbeat_sent(now);
        lease.heartbeat_answered(&[round], now);
        if lease.step(now) == Step::QueryLease(round) {
            lease.loss_explained(LossCause::NotFound, now, 0.0);
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
