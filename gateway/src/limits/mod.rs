//! The rate limits of routes, for each client on its own. They are governor's GCRA (ITU-T I.371),
//! with a bound on the number of clients, which governor lacks.
//! Invariant: a client is limited by its own requests alone, and memory is bounded, however many
//! clients there are.

mod client;
mod rate_limit;

use std::{collections::HashMap, sync::Arc};

use governor::{
    Quota,
    clock::{Clock, DefaultClock},
};

use self::rate_limit::RateLimit;
pub(crate) use self::{client::ClientKey, rate_limit::RateLimited};
use crate::routes::Rate;

/// The limits of all routes that have a rate.
#[derive(Debug)]
pub(crate) struct RateLimits<C: Clock = DefaultClock> {
    routes: HashMap<String, Arc<RateLimit<C>>>,
    clock: C,
}

impl RateLimits {
    /// Limits, by the names of their routes.
    pub(crate) fn new(rates: impl IntoIterator<Item = (String, Rate)>) -> Self {
        Self::with_clock(rates, DefaultClock::default())
    }
}

impl<C: Clock + Clone> RateLimits<C> {
    fn with_clock(rates: impl IntoIterator<Item = (String, Rate)>, clock: C) -> Self {
        Self { routes: HashMap::new(), clock }.changed(rates)
    }

    /// Returns limits for other rates. Where a route keeps its rate, its clients keep what they
    /// have used, in both.
    pub(crate) fn changed(&self, rates: impl IntoIterator<Item = (String, Rate)>) -> Self {
        let limit = |route: &String, rate| match self.routes.get(route) {
            Some(limit) if limit.quota() == quota(rate) => Arc::clone(limit),
            _ => Arc::new(RateLimit::new(quota(rate), self.clock.clone())),
        };
        let routes = rates.into_iter().map(|(route, rate)| (limit(&route, rate), route));
        let routes = routes.map(|(limit, route)| (route, limit)).collect();
        Self { routes, clock: self.clock.clone() }
    }

    /// Counts a request of a client to a route.
    ///
    /// # Errors
    /// The client is over its limit; the request is not counted.
    pub(crate) fn check(&self, route: &str, client: ClientKey<'_>) -> Result<(), RateLimited> {
        self.routes.get(route).map_or(Ok(()), |limit| limit.check(client))
    }
}

fn quota(rate: Rate) -> Quota {
    Quota::per_second(rate.per_second).allow_burst(rate.burst)
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, num::NonZeroU32};

    use governor::clock::FakeRelativeClock;

    use super::*;

    fn count(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).expect("not zero")
    }

    fn client(number: u32) -> ClientKey<'static> {
        ClientKey::new(None, Ipv4Addr::from_bits(number).into())
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
    fn a_burst_that_takes_days_to_refill_is_a_limit() {
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
}
