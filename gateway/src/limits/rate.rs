//! How often each client may call. A client alone is bounded by it, and the memory for all of them is, however
//! many there are.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    str::FromStr,
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

/// How many clients a limit tells apart.
pub const CLIENTS_MAX: usize = 100_000;

/// How long a client that has stopped calling is kept.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// How often room is looked for where there is none.
const SWEEP_FULL_EVERY: Duration = Duration::from_secs(1);

/// The longest time that a rate may be about, and that a burst may take to be had again.
const PERIOD_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// So many requests in a time, and so many at once.
///
/// ```
/// use std::{num::NonZeroU32, time::Duration};
/// use waypost_gateway::limits::rate::Rate;
///
/// let requests = NonZeroU32::new(100).unwrap();
/// let rate = Rate::new(requests, Duration::from_secs(1)).unwrap();
/// assert_eq!("100/s".parse(), Ok(rate));
/// assert_eq!(rate.with_burst(NonZeroU32::new(20).unwrap()).unwrap().to_string(), "100/1s, burst 20");
/// assert!("0/s".parse::<Rate>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    requests: NonZeroU32,
    period: Duration,
    burst: NonZeroU32,
}

/// That a rate is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be such as 100/s, 5/10s or 1000/min, at most a day, and a burst that takes at most a day"
)]
pub struct BadRate;

/// Who is counted as one client.
///
/// ```
/// use waypost_gateway::limits::rate::ClientKey;
///
/// let key = |address: &str| ClientKey::new(None, address.parse().unwrap());
/// assert_eq!(key("2001:db8::1"), key("2001:db8::2"));
/// assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
/// assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientKey<'a>(Client<'a>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Client<'a> {
    Known(Method, &'a str),
    At(IpAddr),
}

/// That a client has called too often; the answer is a 429.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests, the next one is taken in {retry_after:?}")]
pub struct Limited {
    /// When the next call is taken, if there is none before.
    pub retry_after: Duration,
}

/// The limits of all routes that have one.
///
/// ```
/// use std::net::IpAddr;
/// use waypost_gateway::limits::rate::{ClientKey, RateLimits};
///
/// let limits = RateLimits::new([("orders".to_owned(), "2/min".parse()?)]);
/// let client = ClientKey::new(None, IpAddr::from([192, 0, 2, 1]));
/// assert!(limits.check("orders", client).is_ok());
/// assert!(limits.check("orders", client).is_ok());
/// assert!(limits.check("orders", client).unwrap_err().retry_after.as_secs() < 30);
/// assert!(limits.check("a route without a limit", client).is_ok());
/// # Ok::<(), waypost_gateway::limits::rate::BadRate>(())
/// ```
#[derive(Debug)]
pub struct RateLimits<C: Clock = DefaultClock> {
    routes: HashMap<String, Arc<RateLimit<C>>>,
    clock: C,
}

/// One rate, for each client on its own (GCRA, ITU-T I.371).
///
/// It tells at most [`CLIENTS_MAX`] clients apart; those who come then are counted as one client, until
/// others have been forgotten. A client is forgotten, within a minute, once that makes no difference to it.
///
/// ```
/// use std::{net::IpAddr, time::Duration};
/// use governor::clock::FakeRelativeClock;
/// use waypost_gateway::limits::rate::{ClientKey, Limited, RateLimit};
///
/// let clock = FakeRelativeClock::default();
/// let limit = RateLimit::with_clock("1/10s".parse()?, clock.clone());
/// let client = ClientKey::new(None, IpAddr::from([192, 0, 2, 1]));
/// assert_eq!(limit.check(client), Ok(()));
/// clock.advance(Duration::from_secs(4));
/// assert_eq!(limit.check(client), Err(Limited { retry_after: Duration::from_secs(6) }));
/// # Ok::<(), waypost_gateway::limits::rate::BadRate>(())
/// ```
pub struct RateLimit<C: Clock = DefaultClock> {
    rate: Rate,
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

impl Rate {
    /// So many requests in a time, as many of them at once; `None`: over more than a day, or more than one
    /// a nanosecond.
    #[must_use]
    pub fn new(requests: NonZeroU32, period: Duration) -> Option<Self> {
        Self { requests, period, burst: requests }.checked()
    }

    /// So many requests at once; the rate stays. `None`: to have them again would take more than a day.
    #[must_use]
    pub fn with_burst(self, burst: NonZeroU32) -> Option<Self> {
        Self { burst, ..self }.checked()
    }

    fn checked(self) -> Option<Self> {
        let refilled = self.interval().checked_mul(self.burst.get())?;
        let is_rate = !self.interval().is_zero() && self.period <= PERIOD_MAX;
        (is_rate && refilled <= PERIOD_MAX).then_some(self)
    }

    fn interval(self) -> Duration {
        self.period / self.requests.get()
    }

    fn quota(self) -> Quota {
        // The interval is never zero; were it, one a second would be a limit, too.
        let quota = Quota::with_period(self.interval());
        quota.unwrap_or(Quota::per_second(NonZeroU32::MIN)).allow_burst(self.burst)
    }
}

impl FromStr for Rate {
    type Err = BadRate;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (requests, period) = text.split_once('/').ok_or(BadRate)?;
        let requests = requests.trim().parse().map_err(|_| BadRate)?;
        let period = period.trim();
        let period = match period.starts_with(|first: char| first.is_ascii_digit()) {
            true => humantime::parse_duration(period),
            false => humantime::parse_duration(&format!("1{period}")),
        };
        Self::new(requests, period.map_err(|_| BadRate)?).ok_or(BadRate)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, period, burst } = self;
        write!(formatter, "{requests}/{}, burst {burst}", humantime::format_duration(*period))
    }
}

impl<'a> ClientKey<'a> {
    /// By who calls, else by the `address`: of IPv6 its first 64 bits, as who has one address has all that
    /// begin so.
    #[must_use]
    pub fn new(identity: Option<&'a Identity>, address: IpAddr) -> Self {
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
    pub fn retry_after_header(self) -> HeaderValue {
        let seconds = self.retry_after.as_secs() + u64::from(self.retry_after.subsec_nanos() > 0);
        seconds.max(1).into()
    }
}

impl RateLimits {
    /// Limits by the names of their routes.
    #[must_use]
    pub fn new(rates: impl IntoIterator<Item = (String, Rate)>) -> Self {
        Self::with_clock(rates, DefaultClock::default())
    }
}

impl<C: Clock + Clone> RateLimits<C> {
    /// Like [`RateLimits::new`], by another clock.
    #[must_use]
    pub fn with_clock(rates: impl IntoIterator<Item = (String, Rate)>, clock: C) -> Self {
        Self { routes: HashMap::new(), clock }.changed(rates)
    }

    /// These limits in place of the present ones. Where a route keeps its rate, its clients keep what they
    /// have used, in both.
    #[must_use]
    pub fn changed(&self, rates: impl IntoIterator<Item = (String, Rate)>) -> Self {
        let limit = |route: &String, rate| match self.routes.get(route) {
            Some(limit) if limit.rate == rate => Arc::clone(limit),
            _ => Arc::new(RateLimit::with_clock(rate, self.clock.clone())),
        };
        let routes = rates.into_iter().map(|(route, rate)| (limit(&route, rate), route));
        let routes = routes.map(|(limit, route)| (route, limit)).collect();
        Self { routes, clock: self.clock.clone() }
    }

    /// The limit of a route; `None`: it has none. For who asks for it with each request.
    #[must_use]
    pub fn limit(&self, route: &str) -> Option<&Arc<RateLimit<C>>> {
        self.routes.get(route)
    }

    /// Counts a call of a client to a route.
    ///
    /// # Errors
    /// Where it is one too many; it is not counted then.
    pub fn check(&self, route: &str, client: ClientKey<'_>) -> Result<(), Limited> {
        self.routes.get(route).map_or(Ok(()), |limit| limit.check(client))
    }
}

impl RateLimit {
    /// A limit by the system's monotonic clock.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self::with_clock(rate, DefaultClock::default())
    }
}

impl<C: Clock> RateLimit<C> {
    /// A limit by another clock.
    #[must_use]
    pub fn with_clock(rate: Rate, clock: C) -> Self {
        Self::bounded(rate, clock, CLIENTS_MAX)
    }

    fn bounded(rate: Rate, clock: C, clients_max: usize) -> Self {
        let clients = Clients {
            states: DashMapStateStore::default(),
            count: AtomicUsize::new(0),
            clients_max,
            others: InMemoryState::default(),
        };
        let started = clock.now();
        let limiter = RateLimiter::new(rate.quota(), clients, clock);
        let (hasher, swept_at_ns) = (RandomState::new(), AtomicU64::new(0));
        Self { rate, limiter, hasher, clients_max, started, swept_at_ns }
    }

    /// Counts a call of a client.
    ///
    /// # Errors
    /// Where it is one too many; it is not counted then.
    pub fn check(&self, client: ClientKey<'_>) -> Result<(), Limited> {
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
        debug.field("rate", &self.rate).field("clients", &self.limiter.len()).finish()
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
    use std::net::Ipv4Addr;

    use governor::clock::FakeRelativeClock;

    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().expect("a rate")
    }

    fn client(number: u32) -> ClientKey<'static> {
        ClientKey::new(None, Ipv4Addr::from_bits(number).into())
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_client_gets_its_burst_then_its_rate() {
        let clock = FakeRelativeClock::default();
        let burst = NonZeroU32::new(3).expect("not zero");
        let limit =
            RateLimit::with_clock(rate("1/2s").with_burst(burst).expect("a rate"), clock.clone());
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
        let limit = RateLimit::with_clock(rate("1/s"), FakeRelativeClock::default());
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
        let limit = RateLimit::bounded(rate("2/10s"), clock.clone(), 100);
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
        let clock = FakeRelativeClock::default();
        let limit = RateLimit::with_clock(rate("10/s"), clock.clone());
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
        let clock = FakeRelativeClock::default();
        let limit = RateLimit::with_clock(rate("2/h"), clock.clone());
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
        let named = |route: &str, text| (route.to_owned(), rate(text));
        let limits = RateLimits::with_clock([named("a", "1/s"), named("b", "1/s")], clock);
        for route in ["a", "b"] {
            assert_eq!(limits.check(route, client(1)), Ok(()));
            assert!(limits.check(route, client(1)).is_err());
        }
        let limits = limits.changed([named("a", "1/s"), named("b", "2/s")]);
        assert!(limits.check("a", client(1)).is_err());
        assert_eq!(limits.check("b", client(1)), Ok(()));
        assert!(limits.limit("a").is_some());
        assert!(limits.limit("c").is_none());
        for _ in 0..10 {
            assert_eq!(limits.check("c", client(1)), Ok(()));
        }
    }

    #[test]
    fn a_rate_is_read_from_its_text() {
        for (text, told) in [
            ("100/s", "100/1s, burst 100"),
            ("5/10s", "5/10s, burst 5"),
            ("1000 / min", "1000/1m, burst 1000"),
            ("1/day", "1/1day, burst 1"),
        ] {
            assert_eq!(rate(text).to_string(), told);
        }
        for text in [
            "",
            "/",
            "100",
            "/s",
            "0/s",
            "-1/s",
            "1.5/s",
            "100/",
            "100/0s",
            "100/x",
            "1/2days",
            "4294967296/s",
            "2000/1us",
            "s/1",
            "1/s/s",
        ] {
            assert_eq!(text.parse::<Rate>(), Err(BadRate), "{text}");
        }
        let burst = |burst| rate("1/h").with_burst(NonZeroU32::new(burst).expect("not zero"));
        assert!(burst(24).is_some());
        assert_eq!(burst(25), None);
        assert_eq!(burst(u32::MAX), None);
    }

    #[test]
    fn threads_together_get_no_more_than_one_alone() {
        let limit = RateLimit::with_clock(rate("1000/min"), FakeRelativeClock::default());
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
