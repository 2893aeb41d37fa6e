//! An instance with its address, load and health.

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
    outcome::Outcome,
    outlier::{Health, HealthChange},
    service_stats::ServiceStats,
};
use crate::{
    proto::{Instance, Status},
    runtime::{
        clock::{self, Instant},
        hash::hash,
    },
    transport::SharedConnection,
};

/// The weight of an instance that has none.
const WEIGHT_DEFAULT: u32 = 100;
/// The time that a probe may take before another one is sent.
const PROBE_MS: Tick = 5_000;
/// The factor by which a failure counts as slower than the call was, than expected, and than the
/// smallest difference that counts: an instance that fails fast must not attract calls. Greater
/// than the factor from which an instance is clearly slower.
const FAILURE_PENALTY: u32 = 8;
/// The part of its share that a new instance starts with.
const WARMTH_MIN: f32 = 0.1;
/// The longest latency that one call counts with.
const LATENCY_MAX: Duration = Duration::from_secs(10);

/// An instance in one snapshot. The order of the fields puts what picks read into one cache line
/// with the reference count.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Endpoint {
    state: Arc<EndpointState>,
    instance: Instance,
}

/// The state that an identity keeps while its address stays. The order of the fields puts what
/// picks read side by side.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct EndpointState {
    /// 0, or the time from which one call may probe the ejected instance.
    probe_at: AtomicU64,
    latency: Latency,
    in_flight: AtomicU32,
    /// The tick of its last response, cut to 32 bits; 0 before the first one.
    responded_at: AtomicU32,
    /// The tick since which it takes traffic; 0 if it did when first seen.
    serving_since: AtomicU64,
    stats: Arc<ServiceStats>,
    /// `host:port`, an IPv6 address in brackets.
    address: Box<str>,
    /// The hash of the id.
    id_hash: u64,
    connection: SharedConnection,
    health: Mutex<Health>,
}

/// The admission of calls to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Admitted,
    /// Ejected, and a probe has been due since this time: one call may go there.
    Probe(Tick),
    /// Ejected: it fails.
    Ejected,
}

/// The time from a request to the head of its response.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ResponseTime {
    /// Measured from the end of the request.
    Whole(Duration),
    /// Measured while the caller was still sending: no measure of the instance's speed.
    Partial(Duration),
}

impl From<Duration> for ResponseTime {
    fn from(took: Duration) -> Self {
        Self::Whole(took)
    }
}

impl Endpoint {
    /// Creates an endpoint for a new instance.
    pub(crate) fn new(instance: Instance, stats: &Arc<ServiceStats>) -> Self {
        let state = EndpointState {
            address: address(&instance.host, instance.port).into(),
            id_hash: hash(instance.id.as_bytes()),
            serving_since: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            responded_at: AtomicU32::new(0),
            connection: SharedConnection::default(),
            latency: Latency::default(),
            health: Mutex::default(),
            probe_at: AtomicU64::new(0),
            stats: Arc::clone(stats),
        };
        Self { instance, state: Arc::new(state) }
    }

    /// Creates the successor of `before`. Calls in flight, the connection and the health stay if
    /// the address stays.
    pub(crate) fn replace(before: &Self, instance: Instance) -> Self {
        let stays = before.instance.host == instance.host && before.instance.port == instance.port;
        if stays {
            Self { instance, state: Arc::clone(&before.state) }
        } else {
            Self::new(instance, &before.state.stats)
        }
    }

    pub(crate) fn instance(&self) -> &Instance {
        &self.instance
    }

    pub(crate) fn address(&self) -> &str {
        &self.state.address
    }

    /// Returns the hash of the id, the same in every process.
    pub(crate) fn id_hash(&self) -> u64 {
        self.state.id_hash
    }

    /// Starts slow start if the instance takes traffic now, and did not `before` or had another
    /// address.
    pub(crate) fn begin_slow_start(&self, before: Option<&Self>, now: Tick) {
        let served = before.is_some_and(|before| before.is_serving() && before.is_at(self));
        if self.is_serving() && !served {
            self.state.serving_since.store(now, Ordering::Relaxed);
        }
    }

    /// Returns the part of its share that the instance gets: grows from a tenth to 1 over
    /// `slow_start_ms`.
    pub(crate) fn warmth(&self, now: Tick, slow_start_ms: Tick) -> f32 {
        let since = self.state.serving_since.load(Ordering::Relaxed);
        let age = now.saturating_sub(since);
        if since == 0 || age >= slow_start_ms {
            return 1.0;
        }
        (age as f32 / slow_start_ms as f32).max(WARMTH_MIN)
    }

    pub(crate) fn connection(&self) -> &SharedConnection {
        &self.state.connection
    }

    pub(crate) fn weight(&self) -> u32 {
        self.instance.weight.unwrap_or(WEIGHT_DEFAULT)
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.weight() > 0 && matches!(self.instance.status(), Status::Up | Status::Suspect)
    }

    /// Returns whether both share an address, and so a connection.
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }

    // The count is a hint for balancing and orders nothing else: relaxed is enough.

    pub(crate) fn in_flight(&self) -> u32 {
        self.state.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn begin(&self) {
        self.state.in_flight.fetch_add(1, Ordering::Relaxed);
        self.state.stats.metrics().call_started();
    }

    pub(crate) fn end(&self) {
        self.state.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.state.stats.metrics().call_ended();
    }

    pub(crate) fn latency(&self) -> &Latency {
        &self.state.latency
    }

    pub(crate) fn admission(&self, now: Tick) -> Admission {
        match self.state.probe_at.load(Ordering::Relaxed) {
            0 => Admission::Admitted,
            at if at <= now => Admission::Probe(at),
            _ => Admission::Ejected,
        }
    }

    /// Returns whether it is not ejected.
    pub(crate) fn is_admitted(&self) -> bool {
        self.admission(self.state.stats.latest()) == Admission::Admitted
    }

    /// Records that the head of a response arrived.
    pub(crate) fn record_response(&self, now: Instant) {
        let tick = self.state.stats.advance(now);
        self.state.responded_at.store((tick as u32).max(1), Ordering::Relaxed);
    }

    /// Returns the time since its last response to any call; none before the first one.
    pub(crate) fn silence(&self, now: Instant) -> Option<Duration> {
        let responded_at = self.state.responded_at.load(Ordering::Relaxed);
        let silent_ms = (self.state.stats.advance(now) as u32).wrapping_sub(responded_at);
        (responded_at > 0).then(|| Duration::from_millis(silent_ms.into()))
    }

    /// Takes the probe that was due `at`. Returns false if another call took it.
    pub(crate) fn take_probe(&self, at: Tick, now: Tick) -> bool {
        let next = now + PROBE_MS;
        let probe_at = &self.state.probe_at;
        probe_at.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Records the outcome of a call, and its response time.
    pub(crate) fn record(&self, outcome: Outcome, took: impl Into<ResponseTime>) {
        let now = self.state.stats.advance(clock::now());
        let took = took.into();
        match outcome {
            Outcome::Success => self.record_success(took, now),
            Outcome::Failure => self.record_failure(took, now),
            Outcome::Unreachable => {}
        }
        self.update_health(outcome, now);
    }

    fn record_success(&self, took: ResponseTime, now: Tick) {
        let (ResponseTime::Whole(duration) | ResponseTime::Partial(duration)) = took;
        self.state.stats.metrics().call_succeeded(duration);
        if let ResponseTime::Whole(took) = took {
            self.latency().observe(took.min(LATENCY_MAX), now);
            self.state.stats.slowest().observe(took, now);
        }
    }

    fn record_failure(&self, took: ResponseTime, now: Tick) {
        let (ResponseTime::Whole(duration) | ResponseTime::Partial(duration)) = took;
        self.state.stats.metrics().call_failed(duration);
        let expected = Duration::from_nanos(self.latency().nanos(now).max(EQUAL_BELOW) as u64);
        let took = match took {
            ResponseTime::Whole(took) => took.max(expected),
            ResponseTime::Partial(_) => expected,
        };
        let penalized = took.saturating_mul(FAILURE_PENALTY).min(LATENCY_MAX);
        self.latency().raise(penalized, now);
    }

    /// Records that a call was abandoned after this time, with an unknown outcome.
    pub(crate) fn record_abandoned(&self, took: Duration) {
        let now = self.state.stats.advance(clock::now());
        self.latency().raise(took.min(LATENCY_MAX), now);
    }

    fn update_health(&self, outcome: Outcome, now: Tick) {
        let suspect = self.instance.status() == Status::Suspect;
        // No code under the lock panics.
        let mut health = self.state.health.lock().unwrap_or_else(PoisonError::into_inner);
        let was_ejected = health.is_ejected();
        let change = health.record(outcome, suspect, now, fastrand::f64());
        let probe_at = match change {
            HealthChange::Unchanged => return,
            HealthChange::Eject(until) => until,
            HealthChange::Readmit => 0,
        };
        self.state.probe_at.store(probe_at, Ordering::Relaxed);
        drop(health);
        let Instance { namespace, service, id, .. } = &self.instance;
        let for_ms = probe_at.saturating_sub(now);
        if probe_at == 0 {
            tracing::info!(
                namespace,
                service,
                instance = id,
                "probe succeeded, instance readmitted"
            );
        } else if was_ejected {
            tracing::debug!(
                namespace,
                service,
                instance = id,
                for_ms,
                "probe failed, instance stays ejected"
            );
        } else {
            tracing::warn!(
                namespace,
                service,
                instance = id,
                for_ms,
                "calls fail, instance ejected"
            );
            self.state.stats.metrics().instance_ejected();
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
    fn calls_in_flight_stay_with_the_address() {
        let before = Endpoint::new(instance("a", Status::Up), &Arc::default());
        before.begin();
        let changed = Endpoint::replace(&before, instance("a", Status::Draining));
        assert_eq!(changed.in_flight(), 1);
        let moved = Instance { port: 81, ..instance("a", Status::Up) };
        assert_eq!(Endpoint::replace(&before, moved).in_flight(), 0);
    }
}
