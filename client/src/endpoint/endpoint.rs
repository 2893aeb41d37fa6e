//! An instance as calls see it: where it is, how much it has to do, how it does. It must never read
//! more into a call than the call came to.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    coarse_clock::Tick,
    latency::{EQUAL_BELOW, Latency},
    outlier::{Health, Judgement, Sign},
    service_stats::Group,
};
use crate::{
    proto::{Instance, Status},
    runtime::{
        clock::{self, Instant},
        hash::hash,
    },
    transport::SharedConnection,
};

/// The weight of an instance that was given none.
const WEIGHT_DEFAULT: u32 = 100;
/// How long a probe may take before another one is sent.
const PROBE_MS: Tick = 5_000;
/// A call that failed counts as one that took so many times as long, or as was expected, or as makes a
/// difference: an instance that fails fast must not attract calls. More than what is clearly slower.
const FAILURE_PENALTY: u32 = 8;
/// What part of its share an instance gets that has just come.
const WARMTH_MIN: f32 = 0.1;
/// The longest that a call counts for.
const LATENCY_MAX: Duration = Duration::from_secs(10);

/// An instance as one snapshot knows it. In this order: what choices look at lies in one cache line
/// with the count of references.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Endpoint {
    reach: Arc<Reach>,
    instance: Instance,
}

/// What stays with an identity for as long as it is reached at the same place. In this order: what
/// choices look at lies side by side.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Reach {
    /// 0, or when the next call may try whether it does well again: until then it is left alone.
    probe_at: AtomicU64,
    latency: Latency,
    in_flight: AtomicU32,
    /// The tick of its last answer, cut to 32 bits; 0 before the first one.
    answered_at: AtomicU32,
    /// Since when it takes traffic; 0 where it always has, as far as is known.
    serving_since: AtomicU64,
    group: Arc<Group>,
    /// `host:port`, an IPv6 address in brackets.
    address: Box<str>,
    /// Of the id.
    id_hash: u64,
    connection: SharedConnection,
    health: Mutex<Health>,
}

/// Whether an instance is to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    /// By one call, which finds out whether it does well again.
    Probe(Tick),
    /// It fails.
    Closed,
}

/// How long an instance took until the head of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Took {
    /// Since it had all of the request.
    Whole(Duration),
    /// Since it had all that the caller had sent, which was still sending: says nothing of its speed.
    Early(Duration),
}

impl From<Duration> for Took {
    fn from(took: Duration) -> Self {
        Self::Whole(took)
    }
}

impl Endpoint {
    /// An instance that was not known before.
    pub(crate) fn new(instance: Instance, group: &Arc<Group>) -> Self {
        let reach = Reach {
            address: address(&instance.host, instance.port).into(),
            id_hash: hash(instance.id.as_bytes()),
            serving_since: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            answered_at: AtomicU32::new(0),
            connection: SharedConnection::default(),
            latency: Latency::default(),
            health: Mutex::default(),
            probe_at: AtomicU64::new(0),
            group: Arc::clone(group),
        };
        Self { instance, reach: Arc::new(reach) }
    }

    /// What `before` has become. Calls in flight, the connection and what is known of how it does stay
    /// where the place stays.
    pub(crate) fn succeed(before: &Self, instance: Instance) -> Self {
        let stays = before.instance.host == instance.host && before.instance.port == instance.port;
        if stays {
            Self { instance, reach: Arc::clone(&before.reach) }
        } else {
            Self::new(instance, &before.reach.group)
        }
    }

    pub(crate) fn instance(&self) -> &Instance {
        &self.instance
    }

    pub(crate) fn address(&self) -> &str {
        &self.reach.address
    }

    /// The same for the same id in every process.
    pub(crate) fn id_hash(&self) -> u64 {
        self.reach.id_hash
    }

    /// Notes where it takes traffic from now on, and did not `before`, or not at this place.
    pub(crate) fn come_after(&self, before: Option<&Self>, now: Tick) {
        let served = before.is_some_and(|before| before.is_serving() && before.is_at(self));
        if self.is_serving() && !served {
            self.reach.serving_since.store(now, Ordering::Relaxed);
        }
    }

    /// What part of its share an instance is to get that has its full share after `slow_start_ms`:
    /// grows from a tenth to 1.
    pub(crate) fn warmth(&self, now: Tick, slow_start_ms: Tick) -> f32 {
        let since = self.reach.serving_since.load(Ordering::Relaxed);
        let age = now.saturating_sub(since);
        if since == 0 || age >= slow_start_ms {
            return 1.0;
        }
        (age as f32 / slow_start_ms as f32).max(WARMTH_MIN)
    }

    pub(crate) fn connection(&self) -> &SharedConnection {
        &self.reach.connection
    }

    pub(crate) fn weight(&self) -> u32 {
        self.instance.weight.unwrap_or(WEIGHT_DEFAULT)
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.weight() > 0 && matches!(self.instance.status(), Status::Up | Status::Suspect)
    }

    /// Whether both are reached over the same connection.
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.reach, &other.reach)
    }

    // The count is a hint for balancing and orders nothing else: relaxed is enough.

    pub(crate) fn in_flight(&self) -> u32 {
        self.reach.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn begin(&self) {
        self.reach.in_flight.fetch_add(1, Ordering::Relaxed);
        self.reach.group.metrics().call_started();
    }

    pub(crate) fn end(&self) {
        self.reach.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.reach.group.metrics().call_ended();
    }

    pub(crate) fn latency(&self) -> &Latency {
        &self.reach.latency
    }

    pub(crate) fn gate(&self, now: Tick) -> Gate {
        match self.reach.probe_at.load(Ordering::Relaxed) {
            0 => Gate::Open,
            at if at <= now => Gate::Probe(at),
            _ => Gate::Closed,
        }
    }

    /// Returns whether it is neither ejected nor on probation.
    pub(crate) fn is_open(&self) -> bool {
        self.gate(self.reach.group.latest()) == Gate::Open
    }

    /// Notes that the head of an answer came from it.
    pub(crate) fn note_answer(&self, now: Instant) {
        let tick = self.reach.group.advance(now);
        self.reach.answered_at.store((tick as u32).max(1), Ordering::Relaxed);
    }

    /// Returns how long ago its last answer to any call came; none where there was none.
    pub(crate) fn silence(&self, now: Instant) -> Option<Duration> {
        let answered_at = self.reach.answered_at.load(Ordering::Relaxed);
        let silent_ms = (self.reach.group.advance(now) as u32).wrapping_sub(answered_at);
        (answered_at > 0).then(|| Duration::from_millis(silent_ms.into()))
    }

    /// Takes the probe that was due `at`. `false`: somebody else took it.
    pub(crate) fn take_probe(&self, at: Tick, now: Tick) -> bool {
        let next = now + PROBE_MS;
        let probe_at = &self.reach.probe_at;
        probe_at.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Takes in what a call came to that took so long.
    pub(crate) fn note(&self, sign: Sign, took: impl Into<Took>) {
        let now = self.reach.group.advance(clock::now());
        let took = took.into();
        match sign {
            Sign::Good => self.note_served(took, now),
            Sign::Bad => self.note_failed(took, now),
            Sign::Unreached => {}
        }
        self.judge(sign, now);
    }

    fn note_served(&self, took: Took, now: Tick) {
        let (Took::Whole(duration) | Took::Early(duration)) = took;
        self.reach.group.metrics().call_succeeded(duration);
        if let Took::Whole(took) = took {
            self.latency().observe(took.min(LATENCY_MAX), now);
            self.reach.group.slowest().observe(took, now);
        }
    }

    fn note_failed(&self, took: Took, now: Tick) {
        let (Took::Whole(duration) | Took::Early(duration)) = took;
        self.reach.group.metrics().call_failed(duration);
        let expected = Duration::from_nanos(self.latency().nanos(now).max(EQUAL_BELOW) as u64);
        let took = match took {
            Took::Whole(took) => took.max(expected),
            Took::Early(_) => expected,
        };
        let penalized = took.saturating_mul(FAILURE_PENALTY).min(LATENCY_MAX);
        self.latency().raise(penalized, now);
    }

    /// Takes in that a call has taken so long and nobody waits for it any more. It says nothing of how
    /// it would have ended.
    pub(crate) fn note_given_up(&self, took: Duration) {
        let now = self.reach.group.advance(clock::now());
        self.latency().raise(took.min(LATENCY_MAX), now);
    }

    fn judge(&self, sign: Sign, now: Tick) {
        let suspect = self.instance.status() == Status::Suspect;
        // Nothing that is done under the lock panics.
        let mut health = self.reach.health.lock().unwrap_or_else(PoisonError::into_inner);
        let was_ejected = health.is_ejected();
        let judgement = health.judge(sign, suspect, now, fastrand::f64());
        let probe_at = match judgement {
            Judgement::Nothing => return,
            Judgement::Eject(until) => until,
            Judgement::Readmit => 0,
        };
        self.reach.probe_at.store(probe_at, Ordering::Relaxed);
        drop(health);
        let Instance { namespace, service, id, .. } = &self.instance;
        let for_ms = probe_at.saturating_sub(now);
        if probe_at == 0 {
            tracing::info!(namespace, service, instance = id, "the instance does well again");
        } else if was_ejected {
            tracing::debug!(namespace, service, instance = id, for_ms, "the instance still fails");
        } else {
            let what = "the instance fails and is left alone for a while";
            tracing::warn!(namespace, service, instance = id, for_ms, "{what}");
            self.reach.group.metrics().instance_ejected();
        }
    }
}

pub(crate) fn address(host: &str, port: u32) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(id: &str, status: Status) -> Instance {
        let host = "10.0.0.1".into();
        Instance { id: id.into(), host, port: 80, status: status.into(), ..Default::default() }
    }

    #[test]
    fn weight_unset_means_100() {
        assert_eq!(Endpoint::new(instance("a", Status::Up), &Arc::default()).weight(), 100);
    }

    #[test]
    fn an_ipv6_address_is_written_in_brackets() {
        assert_eq!(address("::1", 80), "[::1]:80");
        assert_eq!(address("[::1]", 80), "[::1]:80");
        assert_eq!(address("10.0.0.1", 80), "10.0.0.1:80");
        assert_eq!(address("db.internal", 80), "db.internal:80");
    }

    #[test]
    fn calls_in_flight_stay_with_the_place() {
        let before = Endpoint::new(instance("a", Status::Up), &Arc::default());
        before.begin();
        let changed = Endpoint::succeed(&before, instance("a", Status::Draining));
        assert_eq!(changed.in_flight(), 1);
        let moved = Instance { port: 81, ..instance("a", Status::Up) };
        assert_eq!(Endpoint::succeed(&before, moved).in_flight(), 0);
    }
}
