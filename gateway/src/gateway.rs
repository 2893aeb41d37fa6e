//! The state of a gateway, which all requests share. It must never let a request that
//! it has taken in go unanswered, but for those that outlast the time it is given.

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
    observe::{
        access_log::{self, AccessLog, Entry, Outcome, Sent, Told},
        metrics::Measures,
    },
    problem::Problem,
    server::Shutdown,
    settings::Settings,
    upstream::services::Upstreams,
};

/// What serves requests.
pub(crate) struct Gateway {
    pub(crate) settings: Arc<WatchedFile<Settings>>,
    pub(crate) upstreams: Upstreams,
    pub(crate) trusted: TrustedProxies,
    pub(crate) pseudonym: Pseudonym,
    pub(crate) body_silence_max: Duration,
    /// Connections of callers, and tunnels.
    pub(crate) connections: TaskSet,
    pub(crate) shutdown: Shutdown,
    pub(crate) figures: Option<PrometheusHandle>,
    pub(crate) access_log: Option<Arc<AccessLog>>,
    pub(crate) measures: Measures,
    /// Set once the registry had reported all services of the routes: from then on a gateway is ready until
    /// it drains. What a reload adds is waited for by the requests to it alone.
    pub(crate) was_ready: AtomicBool,
}

impl Gateway {
    /// Returns why it should get no traffic yet, or no more.
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

    /// Watches the services of the routes in `settings`, from before the first request to them.
    pub(crate) fn watch(&self, settings: &Settings) {
        self.upstreams.keep(settings.services());
    }

    /// What is in force.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.settings.current()
    }

    /// A request was taken in: it will be told of.
    pub(crate) fn begin(self: &Arc<Self>, entry: Entry) -> Untold {
        self.measures.began();
        Untold { gateway: Arc::clone(self), entry: Some(entry) }
    }

    /// Logs and counts a request that hyper refused, and whose answer is `sent`.
    pub(crate) fn tell_refused(&self, entry: &Entry, problem: &Problem, sent: Sent) {
        self.measures.began();
        let outcome = Outcome::default().with_problem(problem);
        self.tell(entry, &outcome, problem.status(), sent);
    }

    fn tell(&self, entry: &Entry, outcome: &Outcome, status: StatusCode, sent: Sent) {
        self.measures.ended(outcome, status, entry.took());
        if let Some(log) = &self.access_log {
            access_log::write(log, entry, outcome, status, sent);
        }
    }
}

/// A request of which nothing was told yet. Who drops it tells that the caller went away before there
/// was an answer.
pub(crate) struct Untold {
    gateway: Arc<Gateway>,
    /// Gone once there is an answer.
    entry: Option<Entry>,
}

impl Untold {
    /// What is told of a request whose caller did not wait, by a custom of logs; nobody is answered so.
    const GONE: u16 = 499;

    /// Sees to it that a request is told of once its answer was sent.
    pub(crate) fn tell(mut self, outcome: Outcome, answer: Response<Body>) -> Response<Body> {
        let Some(entry) = self.entry.take() else { return answer };
        let (gateway, status) = (Arc::clone(&self.gateway), answer.status());
        let tell = move |sent| gateway.tell(&entry, &outcome, status, sent);
        answer.map(|body| Body::new(Told::new(body, tell)))
    }
}

impl Drop for Untold {
    fn drop(&mut self) {
        if let (Some(entry), Ok(gone)) = (self.entry.take(), StatusCode::from_u16(Self::GONE)) {
            self.gateway.tell(&entry, &Outcome::default(), gone, Sent::default());
        }
    }
}
