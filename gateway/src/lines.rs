//! The channels by which a route's requests go to its service: made when they are first needed, and kept
//! for as long as the route stands in the configuration.

use std::sync::Arc;

use dashmap::DashMap;
use waypost_client::{BalancedChannel, HttpChannel, Protocol, Service};

use crate::{
    routes::{Route, Way},
    upstreams::Upstream,
};

/// Those of one configuration's routes.
#[derive(Default)]
pub(crate) struct Lines {
    /// By the route's place in memory: it stays there for as long as the configuration does, which holds
    /// both.
    written: DashMap<usize, Arc<Line>>,
}

/// The channels of one route.
pub(crate) struct Line {
    service: Service,
    http: HttpChannel,
    grpc: BalancedChannel,
    retries: u32,
    in_flight: Option<u32>,
    hedge: Option<std::time::Duration>,
}

/// How a request may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Once, where it may have been received.
    Never,
    /// Again, as it changes nothing to be served twice.
    Idempotent,
    /// Also to two at once, as it changes nothing at all.
    Safe,
}

impl Lines {
    /// The channels of a route to `upstream`, which is its service.
    pub(crate) fn line(&self, route: &Way, upstream: &Upstream) -> Arc<Line> {
        let Way::Written(route) = route else { return Arc::new(Line::new(route, upstream)) };
        let place = Arc::as_ptr(route) as usize;
        if let Some(line) = self.written.get(&place) {
            return Arc::clone(&line);
        }
        Arc::clone(
            &self.written.entry(place).or_insert_with(|| Arc::new(Line::new(route, upstream))),
        )
    }
}

impl Line {
    fn new(route: &Route, upstream: &Upstream) -> Self {
        let mut service = upstream.service.clone();
        if route.policy != waypost_client::Policy::default() {
            service = service.with_policy(route.policy);
        }
        if route.filter != waypost_client::Filter::default() {
            service = service.with_filter(route.filter.clone());
        }
        let http = upstream.http.clone().over(&service);
        Self {
            http: if route.http2 { http.http2() } else { http },
            grpc: upstream.grpc.clone().over(&service),
            service,
            retries: route.retries,
            in_flight: route.in_flight.map(std::num::NonZeroU32::get),
            hedge: route.hedge,
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
        if repeat != Repeat::Never {
            channel = channel.retry_idempotent(self.retries.saturating_add(1));
        }
        match self.hedge {
            Some(delay) if repeat == Repeat::Safe => channel.hedge_idempotent(delay),
            _ => channel,
        }
    }
}
