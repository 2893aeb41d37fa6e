//! Connections of HTTP/1.1, each for one call at a time, kept for a while for the next one. Must not send a
//! request twice that may have been received: it reports a kept connection that ended, and `stale` decides.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use dashmap::{DashMap, Entry};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header, uri::PathAndQuery,
};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::runtime::{Handle, Id};
use tonic::body::Body;

use super::{
    body::Inflow,
    connection::{Http1, Unanswered},
};
use crate::{
    runtime::{
        clock::{self, Instant},
        tasks,
    },
    transport::{Dialer, SendError, Unusable, unify_length},
};

/// How long a connection that nobody uses is kept: less than servers do, most of which keep one for
/// 5 s and more, so that no call is sent while its instance closes.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// For how long requests that can't be repeated go over new connections, once an instance has closed a
/// kept one without a warning.
const SURPRISED_FOR: Duration = Duration::from_secs(60);

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// How often those that nobody uses are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The connections to the instances of a service.
#[derive(Clone)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    dialer: Dialer,
    /// Those that nobody uses, by the runtime that moves their bytes: another one would have to be woken
    /// by it for each answer, and may outlive it.
    homes: DashMap<Id, Home>,
}

type Home = HashMap<Arc<str>, Kept>;

/// The connections to one address.
#[derive(Default)]
struct Kept {
    /// The last one used is the last.
    idle: Vec<Idle>,
    /// When the instance last closed one that a request had just gone into.
    surprised: Option<Instant>,
}

struct Idle {
    connection: Box<Http1>,
    since: Instant,
}

impl Pool {
    pub(crate) fn new(dialer: &Dialer) -> Self {
        Self { shared: Arc::new(Shared { dialer: dialer.clone(), homes: DashMap::new() }) }
    }

    /// Sends `request` to `address`, over a kept connection where there is one. Cancel safe: dropping
    /// closes the connection.
    pub(crate) async fn send(
        &self,
        mut request: Request<Body>,
        address: &str,
    ) -> Result<Response<Inflow>, SendError> {
        let runtime = Handle::current().id();
        let is_idempotent = request.method().is_idempotent();
        while let Some(mut connection) = self.shared.take(runtime, address, is_idempotent) {
            match connection.send(prepared(request, &connection.host)).await {
                Ok(answer) => return self.lend(answer, connection),
                // It was closed while nobody used it.
                Err(Unanswered::Unsent(unsent)) => request = *unsent,
                Err(Unanswered::Silent(error)) => {
                    self.shared.note_surprise(&connection);
                    return Err(SendError::Stale(error.into()));
                }
                Err(Unanswered::Failed(error)) => return Err(error),
            }
        }
        self.send_afresh(request, address).await
    }

    /// Sends `request` to `address` over a new connection. Cancel safe, as [`send`](Self::send).
    pub(crate) async fn send_afresh(
        &self,
        request: Request<Body>,
        address: &str,
    ) -> Result<Response<Inflow>, SendError> {
        let connecting = self.connect(Handle::current().id(), address);
        let mut connection = Box::new(connecting.await?);
        match connection.send(prepared(request, &connection.host)).await {
            Ok(answer) => self.lend(answer, connection),
            Err(Unanswered::Unsent(_)) => Err(SendError::Unsent),
            Err(Unanswered::Silent(error)) => Err(SendError::Lost(error.into())),
            Err(Unanswered::Failed(error)) => Err(error),
        }
    }

    async fn connect(&self, runtime: Id, address: &str) -> Result<Http1, SendError> {
        if self.shared.add_home(runtime) {
            let keeper = Keeper { pool: Arc::downgrade(&self.shared), runtime };
            tasks::spawn("idle connections", keeper.sweep());
        }
        Http1::open(&self.shared.dialer, address).await.map_err(SendError::Unreached)
    }

    fn lend(
        &self,
        mut answer: Response<Incoming>,
        mut connection: Box<Http1>,
    ) -> Result<Response<Inflow>, SendError> {
        Unusable::check_head(answer.headers()).map_err(SendError::Unusable)?;
        unify_length(answer.headers_mut());
        connection.idle_max = idle_max(answer.headers());
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            connection.detach();
            return Ok(answer.map(Inflow::shared));
        }
        Ok(answer.map(|body| Inflow::own(body, connection, self.clone())))
    }

    /// Takes a connection back, where it can have another call.
    pub(super) fn give_back(&self, mut connection: Box<Http1>) {
        if connection.is_ready() {
            self.shared.put(Idle { connection, since: clock::now() });
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Pool")
    }
}

/// A request as HTTP/1.1 has it: a path for a target, `Host`, and a length where servers insist on one
/// although there is no body (RFC 9110, 8.6).
fn prepared(mut request: Request<Body>, host: &HeaderValue) -> Request<Body> {
    *request.uri_mut() = origin_form(request.uri());
    *request.version_mut() = Version::HTTP_11;
    let expects_body = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    let is_empty = expects_body && request.body().is_end_stream();
    let headers = request.headers_mut();
    headers.entry(header::HOST).or_insert_with(|| host.clone());
    if is_empty && !headers.contains_key(header::TRANSFER_ENCODING) {
        headers.entry(header::CONTENT_LENGTH).or_insert(HeaderValue::from_static("0"));
    }
    request
}

/// Returns how long a connection may be idle: three quarters of what the instance says, as in
/// `Keep-Alive: timeout=5, max=100`, and no longer than [`IDLE_MAX`].
fn idle_max(headers: &HeaderMap) -> Duration {
    let said = headers.get(&KEEP_ALIVE).and_then(|value| value.to_str().ok());
    let seconds = said.and_then(|value| {
        let mut parameters = value.split(',').filter_map(|parameter| parameter.split_once('='));
        let timeout = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"));
        timeout?.1.trim().parse::<u32>().ok()
    });
    seconds.map_or(IDLE_MAX, |seconds| IDLE_MAX.min(Duration::from_millis(750) * seconds))
}

/// Of a URI what one instance is asked.
fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned();
    path.unwrap_or_else(|| PathAndQuery::from_static("/")).into()
}

// No guard is held while a connection is looked at or dropped: both run code of the connection's, and of
// the request that it may still hold, which may come back here.
#[expect(clippy::disallowed_methods, reason = "the guards are held while connections are moved")]
impl Shared {
    /// Returns false where the runtime has a home already.
    fn add_home(&self, runtime: Id) -> bool {
        match self.homes.entry(runtime) {
            Entry::Vacant(home) => drop(home.insert(Home::default())),
            Entry::Occupied(_) => return false,
        }
        true
    }

    fn put(&self, idle: Idle) {
        // Where its runtime has ended, it is of no use, and is dropped after the guard.
        if let Some(mut home) = self.homes.get_mut(&idle.connection.runtime) {
            home.entry(Arc::clone(&idle.connection.address)).or_default().idle.push(idle);
        }
    }

    /// One to `address` that is open, as far as is known. None for a request that can't be repeated where
    /// the instance may close it at any time; one goes in its place, as a new one will be kept.
    fn take(&self, runtime: Id, address: &str, is_idempotent: bool) -> Option<Box<Http1>> {
        let now = clock::now();
        if !is_idempotent && self.surprises(runtime, address, now) {
            drop(self.pop(runtime, address));
            return None;
        }
        while let Some(mut last) = self.pop(runtime, address) {
            if !last.is_expired(now) && last.connection.is_ready() {
                return Some(last.connection);
            }
        }
        None
    }

    fn pop(&self, runtime: Id, address: &str) -> Option<Idle> {
        self.homes.get_mut(&runtime)?.get_mut(address)?.idle.pop()
    }

    fn surprises(&self, runtime: Id, address: &str, now: Instant) -> bool {
        let home = self.homes.get(&runtime);
        home.is_some_and(|home| home.get(address).is_some_and(|kept| kept.surprises(now)))
    }

    fn note_surprise(&self, connection: &Http1) {
        let Some(mut home) = self.homes.get_mut(&connection.runtime) else { return };
        home.entry(Arc::clone(&connection.address)).or_default().surprised = Some(clock::now());
    }

    fn drop_expired(&self, runtime: Id) {
        let now = clock::now();
        let mut expired = Vec::new();
        if let Some(mut home) = self.homes.get_mut(&runtime) {
            home.retain(|_, kept| {
                expired.extend(kept.idle.extract_if(.., |one| one.is_expired(now)));
                !kept.idle.is_empty() || kept.surprises(now)
            });
        }
        drop(expired);
    }
}

impl Kept {
    fn surprises(&self, now: Instant) -> bool {
        self.surprised.is_some_and(|at| now.saturating_duration_since(at) < SURPRISED_FOR)
    }
}

impl Idle {
    fn is_expired(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= self.connection.idle_max
    }
}

/// Looks after the idle connections of a runtime, and lets go of them with it.
struct Keeper {
    pool: Weak<Shared>,
    runtime: Id,
}

impl Keeper {
    /// Closes connections that were idle for too long, while the pool exists.
    async fn sweep(self) {
        loop {
            clock::sleep(SWEEP_INTERVAL).await;
            let Some(pool) = self.pool.upgrade() else { return };
            pool.drop_expired(self.runtime);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.homes.remove(&self.runtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(value: &'static str) -> Duration {
        let mut headers = HeaderMap::new();
        headers.insert(&KEEP_ALIVE, HeaderValue::from_static(value));
        idle_max(&headers)
    }

    #[test]
    fn a_connection_is_kept_for_less_than_the_instance_says() {
        assert_eq!(said("timeout=1"), Duration::from_millis(750));
        assert_eq!(said("max=100, Timeout = 4"), Duration::from_secs(3));
        assert_eq!(said("timeout=0"), Duration::ZERO);
    }

    #[test]
    fn a_connection_is_never_kept_for_longer_than_4_s() {
        assert_eq!(IDLE_MAX, Duration::from_secs(4));
        assert_eq!(idle_max(&HeaderMap::new()), IDLE_MAX);
        for value in ["timeout=75", "timeout=4294967295", "timeout", "timeout=soon", "max=5"] {
            assert_eq!(said(value), IDLE_MAX, "{value}");
        }
    }
}
