//! Connections of HTTP/1.1, each for one call at a time, kept for a while for the next one. Must not send a
//! request twice that may have been received: it reports a kept connection that ended, and `stale` decides.

use std::{fmt, sync::Arc, time::Duration};

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
    idle::IdleConnections,
};
use crate::transport::{Dialer, InvalidResponse, SendError, unify_content_length};

/// How long a connection that nobody uses is kept: less than servers do, most of which keep one for
/// 5 s and more, so that no call is sent while its instance closes.
const IDLE_MAX: Duration = Duration::from_secs(4);
static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// The connections to the instances of a service.
#[derive(Clone)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    dialer: Dialer,
    idle: Arc<IdleConnections>,
}

impl Pool {
    pub(crate) fn new(dialer: &Dialer) -> Self {
        Self { shared: Arc::new(Shared { dialer: dialer.clone(), idle: Arc::default() }) }
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
        while let Some(mut connection) = self.shared.idle.take(runtime, address, is_idempotent) {
            match connection.send(prepared(request, &connection.host)).await {
                Ok(answer) => return self.lend(answer, connection),
                // It was closed while nobody used it.
                Err(Unanswered::Unsent(unsent)) => request = *unsent,
                Err(Unanswered::Silent(error)) => {
                    self.shared.idle.note_surprise(&connection);
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
            Err(Unanswered::Silent(error)) => Err(SendError::ConnectionLost(error.into())),
            Err(Unanswered::Failed(error)) => Err(error),
        }
    }

    async fn connect(&self, runtime: Id, address: &str) -> Result<Http1, SendError> {
        self.shared.idle.serve(runtime);
        Http1::open(&self.shared.dialer, address).await.map_err(SendError::Connect)
    }

    fn lend(
        &self,
        mut answer: Response<Incoming>,
        mut connection: Box<Http1>,
    ) -> Result<Response<Inflow>, SendError> {
        InvalidResponse::check_head(answer.headers()).map_err(SendError::InvalidResponse)?;
        unify_content_length(answer.headers_mut());
        connection.idle_max = idle_max(answer.headers());
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            connection.detach();
            return Ok(answer.map(Inflow::shared));
        }
        Ok(answer.map(|body| Inflow::own(body, connection, Arc::clone(&self.shared.idle))))
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
