//! The channels of routes to their services. They are created when a route is first used, and kept
//! for as long as the configuration is in force.
//! Invariant: service names that callers make up leave nothing here.

use std::{hash::Hash, ops::Deref, sync::Arc, time::Duration};

use dashmap::DashMap;
use waypost_client::{BalancedChannel, HttpChannel, Protocol, Service};
use waypost_core::model::Name;

use super::services::Upstream;
use crate::routes::Route;

/// The route of a request.
#[derive(Clone)]
pub(crate) enum MatchedRoute {
    /// A route of the configuration.
    Configured(Arc<Route>),
    /// No route is configured: the path or the host names the service.
    Implicit(Arc<Route>),
}

impl Deref for MatchedRoute {
    type Target = Arc<Route>;

    fn deref(&self) -> &Arc<Route> {
        match self {
            Self::Configured(route) | Self::Implicit(route) => route,
        }
    }
}

/// The channels of one configuration's routes.
#[derive(Default)]
pub(crate) struct ChannelCache {
    /// By the route's address in memory: it stays the same while the configuration exists, which
    /// holds both.
    configured: DashMap<usize, Arc<RouteChannel>>,
    implicit: DashMap<Name, Arc<RouteChannel>>,
}

/// The channels of one route.
pub(crate) struct RouteChannel {
    route: Arc<Route>,
    service: Service,
    http: HttpChannel,
    grpc: BalancedChannel,
    retries: u32,
    in_flight: Option<u32>,
    hedge: Option<Duration>,
}

/// The rule by which a request may be sent more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplayPolicy {
    /// Once, where an instance may have received it.
    Never,
    /// Again after a failure: it is idempotent.
    Idempotent,
    /// Also to two instances at once: it is safe.
    Hedged,
}

impl ChannelCache {
    /// Returns the implicit route to a service.
    #[expect(clippy::disallowed_methods, reason = "the guard is held while an `Arc` is cloned")]
    pub(crate) fn implicit_route(&self, service: Name, timeout: Duration) -> MatchedRoute {
        MatchedRoute::Implicit(match self.implicit.get(&service) {
            Some(channel) => Arc::clone(&channel.route),
            None => Arc::new(Route::to(service, timeout)),
        })
    }

    /// Returns the channels of a route to `upstream`, its service, which the registry must have.
    pub(crate) fn channel(&self, route: &MatchedRoute, upstream: &Upstream) -> Arc<RouteChannel> {
        let create = || Arc::new(RouteChannel::new(route, upstream));
        match route {
            MatchedRoute::Configured(route) => {
                cached(&self.configured, &(Arc::as_ptr(route) as usize), create)
            }
            MatchedRoute::Implicit(route) => cached(&self.implicit, &route.service, create),
        }
    }
}

/// Returns the channels cached for `key`, created if need be. No guard of the map is held while
/// `create` runs, which locks tables of the client.
#[expect(clippy::disallowed_methods, reason = "the guards are held while an `Arc` is cloned")]
fn cached<K: Clone + Eq + Hash>(
    channels: &DashMap<K, Arc<RouteChannel>>,
    key: &K,
    create: impl FnOnce() -> Arc<RouteChannel>,
) -> Arc<RouteChannel> {
    if let Some(channel) = channels.get(key) {
        return Arc::clone(&channel);
    }
    let created = create();
    Arc::clone(&channels.entry(key.clone()).or_insert(created))
}

impl RouteChannel {
    fn new(route: &Arc<Route>, upstream: &Upstream) -> Self {
        let mut service = upstream.service.clone();
        if route.policy != waypost_client::Policy::default() {
            service = service.with_policy(route.policy);
        }
        if route.filter != waypost_client::Filter::default() {
            service = service.with_filter(route.filter.clone());
        }
        let http = upstream.http.clone().with_service(&service);
        Self {
            http: if route.http2 { http.http2() } else { http },
            grpc: upstream.grpc.clone().with_service(&service),
            service,
            retries: route.retries,
            in_flight: route.in_flight.map(std::num::NonZeroU32::get),
            hedge: route.hedge,
            route: Arc::clone(route),
        }
    }

    /// Returns the service, with the route's selection of instances.
    pub(crate) fn service(&self) -> &Service {
        &self.service
    }

    pub(crate) fn http(&self, policy: ReplayPolicy) -> HttpChannel {
        self.configured(self.http.clone(), policy)
    }

    pub(crate) fn grpc(&self, policy: ReplayPolicy) -> BalancedChannel {
        self.configured(self.grpc.clone(), policy)
    }

    fn configured<P: Protocol>(
        &self,
        mut channel: BalancedChannel<P>,
        policy: ReplayPolicy,
    ) -> BalancedChannel<P> {
        if let Some(limit) = self.in_flight {
            channel = channel.concurrency_limit(limit);
        }
        let attempts = self.retries.saturating_add(1);
        match (policy, self.hedge) {
            (ReplayPolicy::Never, _) => channel,
            (ReplayPolicy::Idempotent, _) => channel.retry_idempotent(attempts).sequential(),
            (ReplayPolicy::Hedged, None) => channel.retry_idempotent(attempts),
            (ReplayPolicy::Hedged, Some(delay)) => {
                channel.retry_idempotent(attempts).hedge_idempotent(delay)
            }
        }
    }
}
