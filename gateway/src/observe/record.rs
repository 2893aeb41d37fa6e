//! A request as logs and metrics see it: its record, from its head on, and its outcome.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant, SystemTime},
};

use http::{Method, Version, request::Parts};
use waypost_client::{HttpChannelError, ServedBy};
use waypost_core::model::Name;
use waypost_serving::correlation::Correlation;

use crate::{clock, problem::Problem};

/// A request that has arrived.
#[derive(Debug)]
pub(crate) struct RequestRecord {
    started: Instant,
    pub(super) started_at: SystemTime,
    pub(super) peer: IpAddr,
    /// `None`: the head could not be parsed.
    pub(super) method: Option<Method>,
    pub(super) path: Box<str>,
    pub(super) version: Version,
    pub(super) correlation: Correlation,
}

/// The outcome of a request: where it was sent, and how that ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestOutcome {
    pub(crate) route: Option<Name>,
    pub(crate) service: Option<Name>,
    pub(crate) instance: Option<Box<str>>,
    pub(crate) attempts: u32,
    /// The time until the head of the response.
    pub(crate) upstream_time: Option<Duration>,
    pub(crate) problem: Option<Box<str>>,
}

impl RequestRecord {
    pub(crate) fn new(head: &Parts, peer: SocketAddr, correlation: &Correlation) -> Self {
        Self {
            method: Some(head.method.clone()),
            path: head.uri.path().into(),
            ..Self::unparsed(peer, head.version, correlation)
        }
    }

    /// A request whose head could not be parsed.
    pub(crate) fn unparsed(peer: SocketAddr, version: Version, correlation: &Correlation) -> Self {
        Self {
            started: clock::now(),
            started_at: clock::wall_now(),
            peer: peer.ip(),
            method: None,
            path: "".into(),
            version,
            correlation: correlation.clone(),
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        clock::now() - self.started
    }
}

impl RequestOutcome {
    pub(crate) fn with_problem(mut self, problem: &Problem) -> Self {
        self.problem = Some(problem.to_string().into());
        self
    }

    /// Notes the instance that responded.
    pub(crate) fn served_by(&mut self, by: &ServedBy) {
        self.instance = Some(by.instance().id.as_str().into());
        self.attempts = by.attempts();
    }

    /// Notes the instance that was tried last.
    pub(crate) fn failed(&mut self, error: &HttpChannelError) {
        self.instance = error.instance().map(|instance| instance.id.as_str().into());
        self.attempts = error.attempts();
    }
}
