//! How often each client may call. A client alone is bounded by it, and the memory for all of them is, however
//! many there are.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock, Reference},
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{
        InMemoryState, NotKeyed, StateStore,
        keyed::{DashMapStateStore, ShrinkableKeyedStateStore},
    },
};
use http::HeaderValue;
use waypost_auth::{Identity, Method};

use crate::routes::Rate;

/// How many clients a limit tells apart.
pub(crate) const CLIENTS_MAX: usize = 100_000;

/// How long a client that has stopped calling is kept.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// How often room is looked for where there is none.
const SWEEP_FULL_EVERY: Duration = Duration::from_secs(1);

/// Who is counted as one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientKey<'a>(Client<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Client<'a> {
    Known(Method, &'a str),
    At(IpAddr),
}

/// That a client has called too often; the answer is a 429.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests, the next one is taken in {retry_after:?}")]
pub(crate) struct Limited {
    /// When the next call is taken, if there is none before.
    pub(crate) retry_after: Duration,
}

/// The limits of all routes that have one.
#[derive(Debug)]
pub(crate) struct RateLimits<C: Clock = DefaultClock> {
    routes: HashMap<String, Arc<RateLimit<C>>>,
    clock: C,
}

/// One rate, for each client on its own (GCRA, ITU-T I.371).
///
/// It tells at most [`CLIENTS_MAX`] clients apart; those who come then are counted as one client, until
/// others have been forgotten. A client is forgotten, within a minute, once that makes no difference to it.
pub(crate) struct RateLimit<C: Clock = DefaultClock> {
    quota: Quota,
    limiter: RateLimiter<u64, Clients, C, NoOpMiddleware<C::Instant>>,
    /// Clients are kept by their hash, whose length nobody chooses, and whose seed nobody knows: who could
    /// find two clients with one hash could use up the other's requests.
    hasher: RandomState,
    clients_max: usize,
    started: C::Instant,
    swept_at_ns: AtomicU64,
}

/// The states of the clients: the bound that governor doesn't have.
#[derive(Debug)]
struct Clients {
    states: DashMapStateStore<u64>,
    /// How many there are, or have been at the last sweep and since: a count of all shards for each request
    /// would be slow.
    count: AtomicUsize,
    clients_max: usize,
    /// Of those for whom there is no room.
    others: InMemoryState,
}

fn quota(rate: Rate) -> Quota {
    Quota::per_second(rate.per_second).allow_burst(rate.burst)
}

impl<'a> ClientKey<'a> {
    /// By who calls, else by the `address`: of IPv6 its first 64 bits, as who has one address has all that
    /// begin so.
    #[must_use]
    pub(crate) fn new(identity: Option<&'a Identity>, address: IpAddr) -> Self {
        Self(match (identity, address.to_canonical()) {
            (Some(identity), _) => Client::Known(identity.method, &identity.subject),
            (None, IpAddr::V4(address)) => Client::At(address.into()),
            (None, IpAddr::V6(address)) => {
                let network = address.to_bits() & !u128::from(u64::MAX);
                Client::At(Ipv6Addr::from_bits(network).into())
            }
        })
    }
}

impl Limited {
    /// The value of `Retry-After` for the answer: whole seconds, at least one.
    #[must_use]
    pub(crate) fn retry_after_header(self) -> HeaderValue {
        let seconds = self.retry_after.as_secs() + u64::from(self.retry_after.subsec_nanos() > 0);
        seconds.max(1).into()
    }
}

impl RateLimits {
    /// Limits by the names of their routes.
    #[must_use]
    pub(crate) fn new(rates: impl IntoIterator<Item = (String, Rate)>) -> Self {
        Self::with_clock(rates, DefaultClock::default())
    }
}

impl<C: Clock + Clone> RateLimits<C> {
    /// Like [`RateLimits::new`], by another clock.
    #[must_use]
    pub(crate) fn with_clock(rates: impl IntoIterator<Item = (String, Rate)>, clock: C) -> Self {
        Self { routes: HashMap::new(), clock }.changed(rates)
    }

    /// These limits in place of the present ones. Where a route keeps its rate, its clients keep what they
    /// have used, in both.
    #[must_use]
    pub(crate) fn changed(&self, rates: impl IntoIterator<Item = (String, Rate)>) -> Self {
        let limit = |route: &String, rate| match self.routes.get(route) {
            Some(limit) if limit.quota == quota(rate) => Arc::clone(limit),
            _ => Arc::new(RateLimit::bounded(quota(rate), self.clock.clone(), CLIENTS_MAX)),
        };
        let routes = rates.into_iter().map(|(route, rate)| (limit(&route, rate), route));
        let routes = routes.map(|(limit, route)| (route, limit)).collect();
        Self { routes, clock: self.clock.clone() }
    }

    /// Counts a call of a client to a route.
    ///
    /// # Errors
    /// Where it is one too many; it is not counted then.
    pub(crate) fn check(&self, route: &str, client: ClientKey<'_>) -> Result<(), Limited> {
        self.routes.get(route).map_or(Ok(()), |limit| limit.check(client))
    }
}

impl<C: Clock> RateLimit<C> {
    fn bounded(quota: Quota, clock: C, clients_max: usize) -> Self {
        let clients = Clients {
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

    /// Counts a call of a client.
    ///
    /// # Errors
    /// Where it is one too many; it is not counted then.
    pub(crate) fn check(&self, client: ClientKey<'_>) -> Result<(), Limited> {
        let now = self.limiter.clock().now();
        self.sweep(now);
        let checked = self.limiter.check_key(&self.hasher.hash_one(client));
        checked.map_err(|refused| Limited { retry_after: refused.wait_time_from(now) })
    }

    /// Forgets those who have all their requests again, when it is time to. Whoever calls then does it, so
    /// that it needs no task; what it costs is bounded by the number of clients.
    fn sweep(&self, now: C::Instant) {
        let now_ns = now.duration_since(self.started).as_u64();
        let swept_at_ns = self.swept_at_ns.load(Ordering::Relaxed);
        let is_full = self.limiter.len() >= self.clients_max;
        let every = if is_full { SWEEP_FULL_EVERY } else { SWEEP_EVERY };
        if u128::from(now_ns.saturating_sub(swept_at_ns)) < every.as_nanos() {
            return;
        }
        let swap = self.swept_at_ns.compare_exchange(
            swept_at_ns,
            now_ns,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        // Else another one does it.
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

impl StateStore for Clients {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, client: &u64, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        // Two calls of a new client at a time count it twice: there is room for one fewer, until the sweep.
        let is_new = !self.states.contains_key(client);
        if is_new && self.count.fetch_add(1, Ordering::Relaxed) >= self.clients_max {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return self.others.measure_and_replace(&NotKeyed::NonKey, decide);
        }
        self.states.measure_and_replace(client, decide)
    }
}

impl ShrinkableKeyedStateStore<u64> for Clients {
    fn retain_recent(&self, drop_below: Nanos) {
        self.states.retain_recent(drop_below);
        // Those who come in between are not counted: no more than there are calls at a time.
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

    use super::*;

    fn count(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).expect("not zero")
    }

    /// So many requests at once, each of which is there again after `seconds`.
    fn limit(burst: u32, each: Duration) -> (RateLimit<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let quota = Quota::with_period(each).expect("a period").allow_burst(count(burst));
        (RateLimit::bounded(quota, clock.clone(), CLIENTS_MAX), clock)
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
        assert_eq!(limit.check(client(1)), Err(Limited { retry_after: seconds(2) }));
        clock.advance(Duration::from_millis(500));
        let limited = Limited { retry_after: Duration::from_millis(1500) };
        assert_eq!(limit.check(client(1)), Err(limited));
        assert_eq!(limited.retry_after_header(), "2");
        clock.advance(Duration::from_millis(1500));
        assert_eq!(limit.check(client(1)), Ok(()));
        assert_eq!(limit.check(client(1)), Err(Limited { retry_after: seconds(2) }));
        clock.advance(seconds(3600));
        for _ in 0..3 {
            assert_eq!(limit.check(client(1)), Ok(()));
        }
        assert!(limit.check(client(1)).is_err());
    }

    #[test]
    fn a_client_bounds_itself_alone() {
        let (limit, _) = limit(1, seconds(1));
        assert_eq!(limit.check(client(1)), Ok(()));
        assert!(limit.check(client(1)).is_err());
        assert_eq!(limit.check(client(2)), Ok(()));
        let by = |method| Identity { subject: "ci".into(), scopes: Default::default(), method };
        let (token, key) = (by(Method::Jwt), by(Method::ApiKey));
        let address = Ipv4Addr::from_bits(1).into();
        assert_eq!(limit.check(ClientKey::new(Some(&token), address)), Ok(()));
        assert_eq!(limit.check(ClientKey::new(Some(&key), address)), Ok(()));
        assert!(limit.check(ClientKey::new(Some(&key), Ipv4Addr::LOCALHOST.into())).is_err());
    }

    #[test]
    fn those_for_whom_there_is_no_room_are_one_client() {
        let clock = FakeRelativeClock::default();
        let quota = Quota::with_period(seconds(5)).expect("a period").allow_burst(count(2));
        let limit = RateLimit::bounded(quota, clock.clone(), 100);
        for number in 0..100 {
            assert_eq!(limit.check(client(number)), Ok(()));
        }
        assert_eq!(limit.check(client(1000)), Ok(()));
        assert_eq!(limit.check(client(1001)), Ok(()));
        assert!(limit.check(client(1002)).is_err(), "all others have used two");
        assert_eq!(limit.check(client(7)), Ok(()), "who was there keeps its own");
        assert_eq!(limit.limiter.len(), 100);
        for number in 2000..200_000 {
            assert!(limit.check(client(number)).is_err());
        }
        assert_eq!(limit.limiter.len(), 100);
        // All have their requests again, and are forgotten: there is room.
        clock.advance(seconds(20));
        for number in 3000..3100 {
            assert_eq!(limit.check(client(number)), Ok(()));
        }
    }

    #[test]
    fn a_client_that_is_full_again_is_forgotten_within_a_minute() {
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
    fn who_has_used_its_requests_is_not_forgotten() {
        let (limit, clock) = limit(2, seconds(1800));
        assert_eq!(limit.check(client(1)), Ok(()));
        assert_eq!(limit.check(client(1)), Ok(()));
        for minute in 1..30 {
            clock.advance(seconds(60));
            let limited = Limited { retry_after: seconds(1800 - 60 * minute) };
            assert_eq!(limit.check(client(1)), Err(limited));
        }
    }

    #[test]
    fn a_route_that_keeps_its_rate_keeps_its_clients() {
        let clock = FakeRelativeClock::default();
        let named = |route: &str, per_second| {
            let per_second = count(per_second);
            (route.to_owned(), Rate { per_second, burst: per_second })
        };
        let limits = RateLimits::with_clock([named("a", 1), named("b", 1)], clock);
        for route in ["a", "b"] {
            assert_eq!(limits.check(route, client(1)), Ok(()));
            assert!(limits.check(route, client(1)).is_err());
        }
        let limits = limits.changed([named("a", 1), named("b", 2)]);
        assert!(limits.check("a", client(1)).is_err());
        assert_eq!(limits.check("b", client(1)), Ok(()));
        for _ in 0..10 {
            assert_eq!(limits.check("c", client(1)), Ok(()));
        }
    }

    #[test]
    fn a_burst_that_takes_days_to_be_had_again_is_a_limit() {
        for (per_second, burst) in [(1, 100_000), (u32::MAX, 100_000), (1, u32::MAX)] {
            let rate = Rate { per_second: count(per_second), burst: count(burst) };
            let clock = FakeRelativeClock::default();
            let limits = RateLimits::with_clock([("orders".to_owned(), rate)], clock);
            for _ in 0..100_000 {
                assert_eq!(limits.check("orders", client(1)), Ok(()));
            }
            let is_limited = limits.check("orders", client(1)).is_err();
            assert_eq!(is_limited, burst == 100_000, "{rate:?}");
        }
    }

    #[test]
    fn threads_together_get_no_more_than_one_alone() {
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
