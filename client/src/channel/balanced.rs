//! The channel, its options and its retry budget.

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use tower::retry::budget::TpsBudget;

use super::{
    http1::Pool,
    protocol::{Grpc, Protocol},
};
use crate::service::Service;

/// The longest time that a call waits before it is sent: for the first view, and for connections.
pub(super) const SEND_WAIT_MAX: Duration = Duration::from_secs(5);

/// Longer than any wait for an instance, and short enough to be added to any time.
pub(super) const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The retry budget: this share of the calls of the last 10 s, and so many more a second.
const BUDGET_SHARE: f32 = 0.2;
const BUDGET_RESERVE: u32 = 10;
const BUDGET_WINDOW: Duration = Duration::from_secs(10);

/// A channel to a service, for any client that tonic generates. Each call goes to an instance of
/// its own; added and removed instances take effect while calls run. Cheap to clone.
///
/// - Connections are made on first use, and kept. If an instance takes none, the call goes to
///   another one (each is tried once): after the connect timeout, or after half of the call's
///   remaining time.
/// - A failing instance is ejected for a while, as described at [`Policy`](crate::Policy). Failures
///   are a refused connection, a status code that is a server's own fault (`UNAVAILABLE`,
///   `INTERNAL`, `UNKNOWN`, `RESOURCE_EXHAUSTED`, `DEADLINE_EXCEEDED`, `DATA_LOSS`), and a timeout
///   of the call.
/// - A call that no instance has begun to serve (its connection ended before it was sent, or an
///   instance that shuts down refused it) is sent to another instance. If its connection breaks
///   later, it fails with `UNAVAILABLE`, and the next call connects again;
///   [`retry_idempotent`](Self::retry_idempotent) retries it.
/// - The head and the trailers of a response may have 256 KiB each. A call with more fails with
///   `RESOURCE_EXHAUSTED`, which names the limit; it is not retried, and other calls go on.
/// - Retries have a budget, which all clones of a channel share: 20 % of the calls of the last 10
///   s, and 10 a second. Beyond it a call fails, rather than add to an overload. The search for an
///   instance that takes a connection is free.
/// - No call hangs. A call that can't be sent within 5 s (while the instances are loading, for
///   example), or for which there is no instance, fails with `UNAVAILABLE` and the reason
///   ([`wait_for_ready`](Self::wait_for_ready) makes it wait for one). A timeout of the request
///   ([`tonic::Request::set_timeout`]) covers everything until the response's head, and ends in
///   `DEADLINE_EXCEEDED`. The instance gets the remaining time.
/// - Correlation headers travel on to the calls that serve a request: see
///   [`correlation`](crate::correlation). Each attempt is a `tracing` span at `debug` (`attempt`,
///   with `service`, `instance`, and the number of the `attempt`).
/// - A call counts as in flight until its response is read to the end or dropped, streams included.
///
/// Failures are always responses with a status; the service itself never fails.
///
/// ```
/// use waypost_client::{Client, proto::discovery_client::DiscoveryClient};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), waypost_client::BuildError> {
/// let client = Client::new("http://127.0.0.1:7510")?;
/// // Any generated client does; this one happens to be at hand.
/// let registries = DiscoveryClient::new(client.channel("registries"));
/// # drop(registries);
/// # Ok(())
/// # }
/// ```
pub struct BalancedChannel<P = Grpc> {
    pub(super) service: Service,
    /// The retry budget that all clones share.
    pub(super) budget: Arc<TpsBudget>,
    pub(super) options: ChannelOptions,
    /// The HTTP/1.1 connections; absent if all calls to an instance share one HTTP/2 connection.
    pub(super) pool: Option<Pool>,
    protocol: PhantomData<P>,
}

impl<P> Clone for BalancedChannel<P> {
    fn clone(&self) -> Self {
        Self {
            service: self.service.clone(),
            budget: Arc::clone(&self.budget),
            options: self.options,
            pool: self.pool.clone(),
            protocol: PhantomData,
        }
    }
}

impl<P> fmt::Debug for BalancedChannel<P> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("BalancedChannel")
            .field("service", &self.service)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// The options of a channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChannelOptions {
    /// The number of attempts, including the first, for a call that may have been received.
    pub(super) attempts: u32,
    /// The number of calls that an instance may have in flight.
    pub(super) in_flight_max: u32,
    /// The time that a call waits for an instance.
    pub(super) ready_wait: Duration,
    /// The time without a response after which a second attempt starts.
    pub(super) hedge_delay: Option<Duration>,
    pub(super) overlap: Overlap,
}

/// The parallel attempts of a call that may be retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overlap {
    /// While the first instance is silent.
    Allowed,
    Forbidden,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            attempts: 1,
            in_flight_max: u32::MAX,
            ready_wait: Duration::ZERO,
            hedge_delay: None,
            overlap: Overlap::Allowed,
        }
    }
}

impl<P: Protocol> BalancedChannel<P> {
    pub(super) fn new(service: Service, pool: Option<Pool>) -> Self {
        let budget = Arc::new(TpsBudget::new(BUDGET_WINDOW, BUDGET_RESERVE, BUDGET_SHARE));
        Self { service, budget, options: ChannelOptions::default(), pool, protocol: PhantomData }
    }

    /// Returns the service that this channel calls.
    ///
    /// ```
    /// use waypost_client::Service;
    ///
    /// let channel = Service::fixed([]).channel();
    /// assert!(channel.service().snapshot().is_some());
    /// ```
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Retries calls to idempotent methods: a call whose response has `UNAVAILABLE` in its head, or
    /// whose connection is lost before that, is sent again, with up to `attempts` attempts in all
    /// (1 or 0: one, the default). The original channel stays unchanged; both share the budget.
    ///
    /// - A retry goes at once to an instance that was not tried and is not ejected. If there is
    ///   none, it waits a random time of up to 50 ms, twice as long each time, and at most 1 s.
    /// - A call with a timeout also goes to another instance if its own is silent: it has sent no
    ///   response to any call for a second (less if the timeout is short, so that there is time for
    ///   all attempts; longer if the service's responses were slower lately). The first response
    ///   counts. An instance that stays silent until then has failed the call, as at a timeout.
    ///   [`sequential`](Self::sequential) forbids that.
    /// - A retry respects the wait in the response (`grpc-retry-pushback-ms`, or else `retry-after`
    ///   in seconds). Any other value there, such as a negative number, or a wait beyond the call's
    ///   timeout (5 s if it has none) prevents the retry.
    /// - Requests are buffered up to 64 KiB; a longer one is sent once.
    /// - `grpc-previous-rpc-attempts` has the number of previous attempts.
    /// - When all attempts have failed, the call ends as the last attempt did.
    ///
    /// ```
    /// use waypost_client::Service;
    ///
    /// let orders = Service::fixed([]).channel();
    /// let reading = orders.clone().retry_idempotent(3);
    /// # drop((orders, reading));
    /// ```
    #[must_use]
    pub fn retry_idempotent(mut self, attempts: u32) -> Self {
        self.options.attempts = attempts;
        self
    }

    /// Forbids parallel attempts: a call that may be retried
    /// ([`retry_idempotent`](Self::retry_idempotent)) is retried after it failed, and not while its
    /// instance is silent. For methods that are idempotent but change something.
    ///
    /// ```
    /// use waypost_client::Service;
    ///
    /// let orders = Service::fixed([]).channel();
    /// let writing = orders.clone().retry_idempotent(2).sequential();
    /// # drop((orders, writing));
    /// ```
    #[must_use]
    pub fn sequential(mut self) -> Self {
        self.options.overlap = Overlap::Forbidden;
        self
    }

    /// Sends no call to an instance that has `limit` calls in flight (at least 1). If all have, a
    /// call fails at once with `RESOURCE_EXHAUSTED`. Default: no limit.
    ///
    /// A call is in flight until its response is read to the end. The calls of all the client's
    /// handles to the service count, and other [picks](crate::Pick) too. More than `limit` calls of
    /// this channel never pass; if several compete for the last place, it may stay free.
    ///
    /// ```
    /// use waypost_client::Service;
    ///
    /// let channel = Service::fixed([]).channel().concurrency_limit(100);
    /// # drop(channel);
    /// ```
    #[must_use]
    pub fn concurrency_limit(mut self, limit: u32) -> Self {
        self.options.in_flight_max = limit.max(1);
        self
    }

    /// Makes calls wait up to `limit` (at most a year) for an instance if there is none, for
    /// example between the last one and its successor. Their own timeout applies too. Default: they
    /// fail at once with the reason, and wait only for the first view: 5 s or `limit`, whichever is
    /// longer.
    ///
    /// ```
    /// use std::time::Duration;
    /// use waypost_client::Service;
    ///
    /// let channel = Service::fixed([]).channel().wait_for_ready(Duration::from_secs(2));
    /// # drop(channel);
    /// ```
    #[must_use]
    pub fn wait_for_ready(mut self, limit: Duration) -> Self {
        self.options.ready_wait = limit.min(FAR);
        self
    }

    /// Hedges calls to idempotent methods: without a response within `delay`, a call is sent to a
    /// second instance as well. The first response counts; the other attempt is cancelled. Default:
    /// no second attempt.
    ///
    /// - A good `delay` is the time that 95 of 100 calls take: then few are sent twice, and slow
    ///   ones get their response sooner.
    /// - A second attempt is paid for from the retry budget: once that is spent, as when all
    ///   instances are slow, there is none.
    /// - If one of the two fails, the other one decides;
    ///   [`retry_idempotent`](Self::retry_idempotent) counts them as two attempts.
    /// - A request that is longer than 64 KiB, or not complete after `delay` (a stream), is not
    ///   sent twice.
    ///
    /// ```
    /// use std::time::Duration;
    /// use waypost_client::Service;
    ///
    /// let orders = Service::fixed([]).channel();
    /// let reading = orders.clone().hedge_idempotent(Duration::from_millis(30));
    /// # drop((orders, reading));
    /// ```
    #[must_use]
    pub fn hedge_idempotent(mut self, delay: Duration) -> Self {
        self.options.hedge_delay = Some(delay);
        self
    }
}

#[cfg(test)]
mod tests {
    use tower::retry::budget::Budget;

    use super::*;

    #[test]
    fn waits_are_as_documented() {
        assert_eq!(SEND_WAIT_MAX, Duration::from_secs(5));
    }

    #[test]
    fn a_fifth_of_the_calls_and_ten_a_second_may_be_retried() {
        let channel = Service::fixed([]).channel();
        let withdrawn = || std::iter::from_fn(|| channel.budget.withdraw().then_some(())).count();
        assert_eq!(withdrawn(), 100, "of 10 s");
        (0..500).for_each(|_| channel.clone().budget.deposit());
        assert_eq!(withdrawn(), 100, "of 500 calls");
    }

    #[test]
    fn defaults_are_as_documented() {
        let options = Service::fixed([]).channel().options;
        assert_eq!(options.attempts, 1);
        assert_eq!(options.in_flight_max, u32::MAX);
        assert_eq!(options.ready_wait, Duration::ZERO);
        assert_eq!(options.hedge_delay, None);
        assert_eq!(options.overlap, Overlap::Allowed);
        let for_ever =
            Service::fixed([]).channel().wait_for_ready(Duration::MAX).options.ready_wait;
        assert_eq!(for_ever, Duration::from_secs(365 * 24 * 3600));
        assert_eq!(Service::fixed([]).channel().concurrency_limit(0).options.in_flight_max, 1);
    }
}
