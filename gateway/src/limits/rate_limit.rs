//! The rate limit of one route.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, Reference},
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{
        InMemoryState, NotKeyed, StateStore,
        keyed::{DashMapStateStore, ShrinkableKeyedStateStore},
    },
};
use http::HeaderValue;

use super::client::ClientKey;

/// The clients of a limit that have a state of their own, at most.
const CLIENTS_MAX: usize = 100_000;

/// The interval at which idle clients are dropped.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// The same while the limit has no room for another client.
const SWEEP_INTERVAL_FULL: Duration = Duration::from_secs(1);

/// A client is over its limit: the response is a 429.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests, retry in {retry_after:?}")]
pub(crate) struct RateLimited {
    /// The time until the next request is allowed, unless others are counted before.
    pub(crate) retry_after: Duration,
}

/// A limit of at most [`CLIENTS_MAX`] clients. Further ones count as one client, until others are
/// dropped: a client is dropped within a minute after it has its whole burst again.
pub(super) struct RateLimit<C: Clock> {
    quota: Quota,
    limiter: RateLimiter<u64, ClientStates, C, NoOpMiddleware<C::Instant>>,
    /// Clients are kept by hash, of a fixed size. The seed is random: with a known one, a client
    /// could find another with the same hash, and use up its requests.
    hasher: RandomState,
    clients_max: usize,
    started: C::Instant,
    swept_at_ns: AtomicU64,
}

/// The states of the clients, with the bound that governor lacks.
#[derive(Debug)]
struct ClientStates {
    states: DashMapStateStore<u64>,
    /// The number of clients at the last sweep, and those added since: to count all shards for each
    /// request would be slow.
    count: AtomicUsize,
    clients_max: usize,
    /// The state of all clients for which there is no room.
    others: InMemoryState,
}

impl RateLimited {
    /// Returns the value of `Retry-After`: whole seconds, at least one.
    pub(crate) fn retry_after_header(self) -> HeaderValue {
        let seconds = self.retry_after.as_secs() + u64::from(self.retry_after.subsec_nanos() > 0);
        seconds.max(1).into()
    }
}

impl<C: Clock> RateLimit<C> {
    pub(super) fn new(quota: Quota, clock: C) -> Self {
        Self::with_clients_max(quota, clock, CLIENTS_MAX)
    }

    fn with_clients_max(quota: Quota, clock: C, clients_max: usize) -> Self {
        let clients = ClientStates {
            states: DashMapStateStore::default(),
            count: AtomicUsize::new(0),
            clients_max,
            others: InMemoryState::default(),
        };
        let started = clock.now();
        let limiter = RateLimiter::new(quota, clients, clock);
        let (hasher, swept_at_ns) = (RandomState::new(), AtomicU64::new(0));
        Self { quota, limiter, hasher, clients_max, started, swept_at_ns }
    }

    pub(super) fn quota(&self) -> Quota {
        self.quota
    }

    /// Counts a request of a client.
    ///
    /// # Errors
    /// The client is over its limit; the request is not counted.
    pub(super) fn check(&self, client: ClientKey<'_>) -> Result<(), RateLimited> {
        let now = self.limiter.clock().now();
        self.sweep(now);
        let checked = self.limiter.check_key(&self.hasher.hash_one(client));
        checked.map_err(|refused| RateLimited { retry_after: refused.wait_time_from(now) })
    }

    /// Drops clients that have their whole burst again, at intervals. The request that is due does
    /// it, so that no task is needed; its cost is bounded by the number of clients.
    fn sweep(&self, now: C::Instant) {
        let now_ns = now.duration_since(self.started).as_u64();
        let swept_at_ns = self.swept_at_ns.load(Ordering::Relaxed);
        let is_full = self.limiter.len() >= self.clients_max;
        let interval = if is_full { SWEEP_INTERVAL_FULL } else { SWEEP_INTERVAL };
        if u128::from(now_ns.saturating_sub(swept_at_ns)) < interval.as_nanos() {
            return;
        }
        let swap = self.swept_at_ns.compare_exchange(
            swept_at_ns,
            now_ns,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        // Otherwise another request sweeps.
        if swap.is_ok() {
            self.limiter.retain_recent();
        }
    }
}

impl<C: Clock> fmt::Debug for RateLimit<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("RateLimit");
        debug.field("quota", &self.quota).field("clients", &self.limiter.len()).finish()
    }
}

impl StateStore for ClientStates {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, client: &u64, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        // Concurrent requests of a new client count it twice: there is room for one fewer until the
        // sweep.
        let is_new = !self.states.contains_key(client);
        if is_new && self.count.fetch_add(1, Ordering::Relaxed) >= self.clients_max {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return self.others.measure_and_replace(&NotKeyed::NonKey, decide);
        }
        self.states.measure_and_replace(client, decide)
    }
}

impl ShrinkableKeyedStateStore<u64> for ClientStates {
    fn retain_recent(&self, drop_below: Nanos) {
        self.states.retain_recent(drop_below);
        // Clients added in between are not counted: no more than there are concurrent requests.
        self.count.store(self.states.len(), Ordering::Relaxed);
    }

    fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, num::NonZeroU32};

    use governor::clock::FakeRelativeClock;
    use waypost_auth::{AuthMethod, Identity};

    use super::*;

    fn count(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).expect("not zero")
    }

    /// Returns a limit of `burst` requests at once, one of which is allowed again after `each`.
    fn limit(burst: u32, each: Duration) -> (RateLimit<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let quota = Quota::with_period(each).expect("a period").allow_burst(count(burst));
        (RateLimit::new(quota, clock.clone()), clock)
    }

    fn client(number: u32) -> ClientKey<'static> {
        ClientKey::new(None, Ipv4Addr::from_bits(number).into())
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_client_gets_its_burst_then_its_rate() {
        let (limit, clock) = limit(3, seconds(2));
        for _ in 0..3 {
            assert_eq!(limit.check(client(1)), Ok(()));
        }
        assert_eq!(limit.check(client(1)), Err(RateLimited { retry_after: seconds(2) }));
        clock.advance(Duration::from_millis(500));
        let limited = RateLimited { retry_after: Duration::from_millis(1500) };
        assert_eq!(limit.check(client(1)), Err(limited));
        assert_eq!(limited.retry_after_header(), "2");
        clock.advance(Duration::from_millis(1500));
        assert_eq!(limit.check(client(1)), Ok(()));
        assert_eq!(limit.check(client(1)), Err(RateLimited { retry_after: seconds(2) }));
        clock.advance(seconds(3600));
        for _ in 0..3 {
            assert_eq!(limit.check(client(1)), Ok(()));
        }
        assert!(limit.check(client(1)).is_err());
    }

    #[test]
    fn a_client_limits_itself_alone() {
        let (limit, _) = limit(1, seconds(1));
        assert_eq!(limit.check(client(1)), Ok(()));
        assert!(limit.check(client(1)).is_err());
        assert_eq!(limit.check(client(2)), Ok(()));
        let by = |method| Identity { subject: "ci".into(), scopes: Default::default(), method };
        let (token, key) = (by(AuthMethod::Jwt), by(AuthMethod::ApiKey));
        let address = Ipv4Addr::from_bits(1).into();
        assert_eq!(limit.check(ClientKey::new(Some(&token), address)), Ok(()));
        assert_eq!(limit.check(ClientKey::new(Some(&key), address)), Ok(()));
        assert!(limit.check(ClientKey::new(Some(&key), Ipv4Addr::LOCALHOST.into())).is_err());
    }

    #[test]
    fn clients_without_room_count_as_one() {
        let clock = FakeRelativeClock::default();
        let quota = Quota::with_period(seconds(5)).expect("a period").allow_burst(count(2));
        let limit = RateLimit::with_clients_max(quota, clock.clone(), 100);
        for number in 0..100 {
            assert_eq!(limit.check(client(number)), Ok(()));
        }
        assert_eq!(limit.check(client(1000)), Ok(()));
        assert_eq!(limit.check(client(1001)), Ok(()));
        assert!(limit.check(client(1002)).is_err(), "the others have used two");
        assert_eq!(limit.check(client(7)), Ok(()), "earlier clients keep their own");
        assert_eq!(limit.limiter.len(), 100);
        for number in 2000..200_000 {
            assert!(limit.check(client(number)).is_err());
        }
        assert_eq!(limit.limiter.len(), 100);
        // All have their burst again, and are dropped: there is room.
        clock.advance(seconds(20));
        for number in 3000..3100 {
            assert_eq!(limit.check(client(number)), Ok(()));
        }
    }

    #[test]
    fn a_client_with_its_whole_burst_is_dropped_within_a_minute() {
        let (limit, clock) = limit(10, Duration::from_millis(100));
        for number in 0..1000 {
            assert_eq!(limit.check(client(number)), Ok(()));
        }
        clock.advance(seconds(59));
        assert_eq!(limit.check(client(0)), Ok(()));
        assert_eq!(limit.limiter.len(), 1000);
        clock.advance(seconds(1));
        assert_eq!(limit.check(client(1)), Ok(()));
        assert!(limit.limiter.len() <= 2, "{limit:?}");
    }

    #[test]
    fn a_client_over_its_limit_is_not_dropped() {
        let (limit, clock) = limit(2, seconds(1800));
        assert_eq!(limit.check(client(1)), Ok(()));
        assert_eq!(limit.check(client(1)), Ok(()));
        for minute in 1..30 {
            clock.advance(seconds(60));
            let limited = RateLimited { retry_after: seconds(1800 - 60 * minute) };
            assert_eq!(limit.check(client(1)), Err(limited));
        }
    }

    #[test]
    fn concurrent_requests_are_counted_once_each() {
        let (limit, _) = limit(1000, seconds(1));
        let taken = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let passed = (0..1000).filter(|_| limit.check(client(1)).is_ok()).count();
                    taken.fetch_add(passed, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(taken.into_inner(), 1000);
    }
}
