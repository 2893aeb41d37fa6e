//! The channel, its options, and the budget of what is sent again. Calls are dispatched elsewhere.

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use tower::retry::budget::TpsBudget;

use super::{
    http1::Pool,
    protocol::{Grpc, Protocol},
};
use crate::service::Service;

/// The longest that a call waits before it is sent: for the instances to be known, and for
/// connections to be made.
pub(super) const SEND_WAIT_MAX: Duration = Duration::from_secs(5);

/// Longer than any call waits for an instance, and short enough to be added to any time.
pub(super) const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// How many calls may be sent again: this share of those of the last 10 s, and so many more a second.
const BUDGET_SHARE: f32 = 0.2;
const BUDGET_RESERVE: u32 = 10;
const BUDGET_WINDOW: Duration = Duration::from_secs(10);

/// A channel to a service, for any client that tonic generates. Each call goes to an instance of its
/// own choice; who comes and goes is followed while calls run. Cheap to clone.
///
/// - Connections are made when they are first needed, and kept. Where an instance takes none, the
///   call goes to another one (each is tried once): after the connect timeout, or after half of what
///   is left of the call's own.
/// - Who fails is left alone for a while, as [`Policy`](crate::Policy) says: who takes no connection,
///   answers with one of the codes that are a server's own fault (`UNAVAILABLE`, `INTERNAL`, `UNKNOWN`,
///   `RESOURCE_EXHAUSTED`, `DEADLINE_EXCEEDED`, `DATA_LOSS`), or lets the call's timeout pass.
/// - A call that an instance has not begun to serve (its connection ended before the call left, or
///   the instance refused it, as one that shuts down does) is sent to another one. Where its connection
///   breaks after that, it fails with `UNAVAILABLE`, and the next call connects afresh;
///   [`retry_idempotent`](Self::retry_idempotent) sends it again.
/// - The head and the trailers of a response may have 256 KiB each. A call with more fails with
///   `RESOURCE_EXHAUSTED`, which names the limit; it is not sent again, and other calls go on.
/// - What is sent again has a budget, which all clones of a channel share: 20 % of the calls of the last
///   10 s, and 10 a second. Beyond it a call fails, rather than add to an overload. To look for an
///   instance that takes a connection costs nothing of it.
/// - Nothing hangs: a call that could not be sent within 5 s (because the registry has not told the
///   instances yet, say), or for which there is no instance, fails with `UNAVAILABLE`, which says
///   why ([`wait_for_ready`](Self::wait_for_ready) lets it wait for one). A timeout that the call's
///   request sets ([`tonic::Request::set_timeout`]) covers all of its way to the answer's head and ends
///   in `DEADLINE_EXCEEDED`. The instance is told what is left of it.
/// - What tells a request apart from others travels on with the calls that are made to serve it: see
///   [`correlation`](crate::correlation). Each attempt is a `tracing` span at `debug` (`attempt`, with
///   `service`, `instance`, and which `attempt` it is).
/// - A call counts as in flight until its answer has been read to the end or dropped, streams
///   included.
///
/// Failures are always answers with a status; the service itself never fails.
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
    /// What sending again may cost: all clones pay from it.
    pub(super) budget: Arc<TpsBudget>,
    pub(super) options: ChannelOptions,
    /// Absent where all calls to an instance share one connection of HTTP/2.
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

/// What a channel was told about its calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChannelOptions {
    /// How often a call is sent at most, where it may have been received.
    pub(super) attempts: u32,
    /// How many calls an instance may have in flight.
    pub(super) in_flight_max: u32,
    /// How long a call waits for an instance.
    pub(super) ready_wait: Duration,
    /// How long an answer may take before a call is sent to another instance, too.
    pub(super) hedge_delay: Option<Duration>,
    pub(super) overlap: Overlap,
}

/// Whether a call that may be sent again may be at two instances at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overlap {
    /// Where the first one is silent.
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

    /// The service that this calls.
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

    /// The same with calls that may be sent more than once, for methods that are idempotent: a call
    /// whose answer says `UNAVAILABLE` in its head, or whose connection is lost before an answer's
    /// head, is sent again, up to `attempts` times in all (1 or 0: once, the default). The channel that
    /// this was made from stays as it is; both have the same budget.
    ///
    /// - It goes at once to an instance that it was not sent to yet and that is not ejected. Where there is
    ///   none, it goes after a random time of up to 50 ms the first, twice as much each next time, and
    ///   never more than 1 s.
    /// - A call with a timeout also goes to another instance where its own is silent: has answered neither
    ///   it nor any other call for a second (less where the timeout is short, so that there is time for all
    ///   attempts; longer where the service's answers took longer lately). The answer that comes first
    ///   counts. An instance that stays silent until then has failed the call, as if its time had passed.
    ///   [`sequential`](Self::sequential) forbids that.
    /// - Where the answer says how long to wait (`grpc-retry-pushback-ms`, or else `retry-after` in
    ///   seconds), it is sent no sooner. Where it says anything else there, a negative number say, or
    ///   where the wait would outlast the call's timeout (5 s, where it has none), it is not sent again.
    /// - Requests are kept up to 64 KiB: what is longer is sent once.
    /// - How often it was sent before is told in `grpc-previous-rpc-attempts`.
    /// - Calls that fail when all tries are spent are answered as the last try was.
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

    /// The same with calls that are never at two instances at once: one that may be sent again
    /// ([`retry_idempotent`](Self::retry_idempotent)) is sent again after it failed, and not while its
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

    /// The same with calls that go to no instance that has `limit` calls in flight already (at least 1).
    /// Where all have, a call fails at once, with `RESOURCE_EXHAUSTED`. Default: no limit.
    ///
    /// A call is in flight until its answer has been read to the end; those of all handles of the
    /// client to the same service count, and other ways of [picking](crate::Pick) too. More than `limit`
    /// calls of this channel never pass; where several reach for the last room at once, it may stay
    /// empty.
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

    /// The same with calls that wait up to `limit` (at most a year) for an instance where there is none,
    /// because the last one left, say, and its successor has not come yet. Their own timeout holds all
    /// the same. Default: they fail at once, and say why; only for the registry to tell the instances at
    /// all they wait, 5 s or `limit`, whichever is longer.
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

    /// The same with calls that are sent to a second instance as well where the first one has not
    /// answered within `delay`, for methods that are idempotent. The answer that comes first counts; the
    /// other attempt is cancelled. Default: no second attempt.
    ///
    /// - A good `delay` is the time that 95 of 100 calls take: then few are sent twice, and slow ones are
    ///   answered sooner.
    /// - Each second attempt is paid for from the budget of what is sent again: once that is spent, as
    ///   when all instances are slow, there is none.
    /// - Where one of them fails, the other one decides; [`retry_idempotent`](Self::retry_idempotent) counts
    ///   them as two attempts.
    /// - A request that is longer than 64 KiB, or not all there after `delay` (a stream), is not sent twice.
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
    fn a_fifth_of_the_calls_and_ten_a_second_may_be_sent_again() {
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
