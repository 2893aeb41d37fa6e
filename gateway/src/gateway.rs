//! The state of a gateway, which all of its requests share.
//! Invariant: every request is logged and counted once, when its response was sent or abandoned.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{Response, StatusCode};
use metrics_exporter_prometheus::PrometheusHandle;
use tonic::body::Body;
use waypost_config::reload::WatchedFile;
use waypost_serving::tasks::TaskSet;

use crate::{
    headers::{forwarded::TrustedProxies, via::Pseudonym},
    observe::{AccessLog, LoggedBody, RequestMetrics, RequestOutcome, RequestRecord, SentBody},
    problem::Problem,
    server::Shutdown,
    settings::Settings,
    upstream::services::Upstreams,
};

/// The status logged for a request whose caller left before the response, by nginx's convention. No
/// caller gets it.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The state of a gateway.
pub(crate) struct Gateway {
    pub(crate) settings: Arc<WatchedFile<Settings>>,
    pub(crate) upstreams: Upstreams,
    pub(crate) trusted: TrustedProxies,
    pub(crate) pseudonym: Pseudonym,
    pub(crate) body_silence_max: Duration,
    /// Connections of callers, and tunnels.
    pub(crate) connections: TaskSet,
    pub(crate) shutdown: Shutdown,
    pub(crate) prometheus: Option<PrometheusHandle>,
    pub(crate) access_log: Option<Arc<AccessLog>>,
    pub(crate) metrics: RequestMetrics,
    /// Set once the registry has reported all services of the routes: from then on the gateway is
    /// ready until it drains. Services that a reload adds delay only the requests to them.
    pub(crate) was_ready: AtomicBool,
}

impl Gateway {
    /// Returns the reason why the gateway should get no traffic, if there is one.
    pub(crate) fn unready(&self) -> Option<String> {
        if self.shutdown.drain.is_cancelled() {
            return Some("the gateway is draining".into());
        }
        if self.was_ready.load(Relaxed) {
            return None;
        }
        let settings = self.settings();
        let loading = settings.services().find(|service| !self.upstreams.get(service).is_loaded());
        if loading.is_none() {
            self.was_ready.store(true, Relaxed);
        }
        loading.map(|service| format!("the registry has not reported service {service} yet"))
    }

    /// Watches the services of the routes in `settings`, before the first request to them.
    pub(crate) fn watch(&self, settings: &Settings) {
        self.upstreams.pin(settings.services());
    }

    /// Returns the settings in force.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.settings.current()
    }

    /// Counts a request that has arrived, and logs it when it ends.
    pub(crate) fn begin(self: &Arc<Self>, record: RequestRecord) -> RequestLog {
        self.metrics.started();
        RequestLog { gateway: Arc::clone(self), record: Some(record) }
    }

    /// Logs and counts a request that hyper refused with the response `sent`.
    pub(crate) fn log_refused(&self, record: &RequestRecord, problem: &Problem, sent: SentBody) {
        self.metrics.started();
        let outcome = RequestOutcome::default().with_problem(problem);
        self.log(record, &outcome, problem.status(), sent);
    }

    fn log(
        &self,
        record: &RequestRecord,
        outcome: &RequestOutcome,
        status: StatusCode,
        sent: SentBody,
    ) {
        self.metrics.finished(outcome, status, record.elapsed());
        if let Some(log) = &self.access_log {
            log.log(record, outcome, status, sent);
        }
    }
}

/// A request that is not logged yet. Dropping it logs that the caller left before the response.
pub(crate) struct RequestLog {
    gateway: Arc<Gateway>,
    /// Taken once there is a response.
    record: Option<RequestRecord>,
}

impl RequestLog {
    /// Makes the request be logged when `response` was sent or abandoned.
    pub(crate) fn respond(
        mut self,
        outcome: RequestOutcome,
        response: Response<Body>,
    ) -> Response<Body> {
        let Some(record) = self.record.take() else { return response };
        let (gateway, status) = (Arc::clone(&self.gateway), response.status());
        let log = move |sent| gateway.log(&record, &outcome, status, sent);
        response.map(|body| Body::new(LoggedBody::new(body, log)))
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        let status = StatusCode::from_u16(CLIENT_CLOSED_REQUEST);
        if let (Some(record), Ok(status)) = (self.record.take(), status) {
            self.gateway.log(&record, &RequestOutcome::default(), status, SentBody::default());
        }
    }
}
