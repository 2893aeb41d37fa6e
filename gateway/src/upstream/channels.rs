//! The ways of requests to services: routes, and the channels to their services, which are made when they
//! are first needed, and kept for as long as the configuration stands. Names that strangers make up must
//! leave nothing here.

use std::{hash::Hash, ops::Deref, sync::Arc, time::Duration};

use dashmap::DashMap;
use waypost_client::{BalancedChannel, HttpChannel, Protocol, Service};

use super::services::Upstream;
use crate::routes::{Name, Route};

/// The route of a request.
#[derive(Clone)]
pub(crate) enum Way {
    /// One that was written down.
    Written(Arc<Route>),
    /// None was written down: the path names the service, or the host does.
    Implicit(Arc<Route>),
}

impl Deref for Way {
    type Target = Arc<Route>;

    fn deref(&self) -> &Arc<Route> {
        match self {
            Self::Written(route) | Self::Implicit(route) => route,
        }
    }
}

/// Those of one configuration's routes.
#[derive(Default)]
pub(crate) struct Lines {
    /// By the route's place in memory: it stays there for as long as the configuration does, which holds
    /// both.
    written: DashMap<usize, Arc<Line>>,
    implicit: DashMap<Name, Arc<Line>>,
}

/// The channels of one route.
pub(crate) struct Line {
    route: Arc<Route>,
    service: Service,
    http: HttpChannel,
    grpc: BalancedChannel,
    retries: u32,
    in_flight: Option<u32>,
    hedge: Option<Duration>,
}

/// How a request may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Once, where it may have been received.
    Never,
    /// Again once it has failed, as it changes nothing to be served twice.
    Idempotent,
    /// Also to two at once, as it changes nothing at all.
    Safe,
}

impl Lines {
    /// The implicit way to a service.
    #[expect(clippy::disallowed_methods, reason = "the guard is held while an `Arc` is cloned")]
    pub(crate) fn implicit(&self, service: Name, timeout: Duration) -> Way {
        Way::Implicit(match self.implicit.get(&service) {
            Some(line) => Arc::clone(&line.route),
            None => Arc::new(Route::to(service, timeout)),
        })
    }

    /// The channels of a route to `upstream`, which is its service, and is known to the registry.
    pub(crate) fn line(&self, way: &Way, upstream: &Upstream) -> Arc<Line> {
        let new = || Arc::new(Line::new(way, upstream));
        match way {
            Way::Written(route) => kept(&self.written, &(Arc::as_ptr(route) as usize), new),
            Way::Implicit(route) => kept(&self.implicit, &route.service, new),
        }
    }
}

/// Returns what is kept for `key`, `new` from now on. No guard of the map is held while `new` runs, which
/// locks tables of the client.
#[expect(clippy::disallowed_methods, reason = "the guards are held while an `Arc` is cloned")]
fn kept<K: Clone + Eq + Hash>(
    lines: &DashMap<K, Arc<Line>>,
    key: &K,
    new: impl FnOnce() -> Arc<Line>,
) -> Arc<Line> {
    if let Some(line) = lines.get(key) {
        return Arc::clone(&line);
    }
    let new = new();
    Arc::clone(&lines.entry(key.clone()).or_insert(new))
}

impl Line {
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

    /// The service, as the route selects from it.
    pub(crate) fn service(&self) -> &Service {
        &self.service
    }

    pub(crate) fn http(&self, repeat: Repeat) -> HttpChannel {
        self.bounded(self.http.clone(), repeat)
    }

    pub(crate) fn grpc(&self, repeat: Repeat) -> BalancedChannel {
        self.bounded(self.grpc.clone(), repeat)
    }

    fn bounded<P: Protocol>(
        &self,
        mut channel: BalancedChannel<P>,
        repeat: Repeat,
    ) -> BalancedChannel<P> {
        if let Some(limit) = self.in_flight {
            channel = channel.concurrency_limit(limit);
        }
        let attempts = self.retries.saturating_add(1);
        match (repeat, self.hedge) {
            (Repeat::Never, _) => channel,
            (Repeat::Idempotent, _) => channel.retry_idempotent(attempts).sequential(),
            (Repeat::Safe, None) => channel.retry_idempotent(attempts),
            (Repeat::Safe, Some(delay)) => {
                channel.retry_idempotent(attempts).hedge_idempotent(delay)
            }
        }
    }
}
