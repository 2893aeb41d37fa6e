//! Connections of HTTP/1.1, each for one call at a time, kept for the next one. Stands in for the
//! pool of hyper-util: see [`http1`](super). Never sends a request twice that may have been
//! received: it reports that a kept connection ended, and `stale` decides.

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
    body::ResponseBody,
    connection::{Http1Connection, SendFailure},
    idle::IdleConnections,
};
use crate::transport::{Dialer, InvalidResponse, SendError, unify_content_length};

/// The longest time that an idle connection is kept: less than most servers do (5 s and more), so
/// that no call is sent while its instance closes.
const IDLE_MAX: Duration = Duration::from_secs(4);
static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// The connections to the instances of a service.
#[derive(Clone)]
pub(crate) struct Pool {
    state: Arc<PoolState>,
}

struct PoolState {
    dialer: Dialer,
    idle: Arc<IdleConnections>,
}

impl Pool {
    pub(crate) fn new(dialer: &Dialer) -> Self {
        Self { state: Arc::new(PoolState { dialer: dialer.clone(), idle: Arc::default() }) }
    }

    /// Sends `request` to `address`, over a kept connection if there is one. Cancel safe: dropping
    /// closes the connection.
    pub(crate) async fn send(
        &self,
        mut request: Request<Body>,
        address: &str,
    ) -> Result<Response<ResponseBody>, SendError> {
        let runtime = Handle::current().id();
        let is_idempotent = request.method().is_idempotent();
        while let Some(mut connection) = self.state.idle.take(runtime, address, is_idempotent) {
            match connection.send(to_http1(request, &connection.host)).await {
                Ok(response) => return self.lend_connection(response, connection),
                // The connection was closed while it was idle.
                Err(SendFailure::Unsent(unsent)) => request = *unsent,
                Err(SendFailure::NoResponse(error)) => {
                    self.state.idle.record_unexpected_close(&connection);
                    return Err(SendError::Stale(error.into()));
                }
                Err(SendFailure::Failed(error)) => return Err(error),
            }
        }
        self.send_on_new_connection(request, address).await
    }

    /// Sends `request` to `address` over a new connection. Cancel safe, as [`send`](Self::send).
    pub(crate) async fn send_on_new_connection(
        &self,
        request: Request<Body>,
        address: &str,
    ) -> Result<Response<ResponseBody>, SendError> {
        let connecting = self.connect(Handle::current().id(), address);
        let mut connection = Box::new(connecting.await?);
        match connection.send(to_http1(request, &connection.host)).await {
            Ok(response) => self.lend_connection(response, connection),
            Err(SendFailure::Unsent(_)) => Err(SendError::Unsent),
            Err(SendFailure::NoResponse(error)) => Err(SendError::ConnectionLost(error.into())),
            Err(SendFailure::Failed(error)) => Err(error),
        }
    }

    async fn connect(&self, runtime: Id, address: &str) -> Result<Http1Connection, SendError> {
        self.state.idle.start(runtime);
        Http1Connection::open(&self.state.dialer, address).await.map_err(SendError::Connect)
    }

    fn lend_connection(
        &self,
        mut response: Response<Incoming>,
        mut connection: Box<Http1Connection>,
    ) -> Result<Response<ResponseBody>, SendError> {
        InvalidResponse::check_head(response.headers()).map_err(SendError::InvalidResponse)?;
        unify_content_length(response.headers_mut());
        connection.idle_max = idle_max(response.headers());
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            connection.detach();
            return Ok(response.map(ResponseBody::shared));
        }
        Ok(response.map(|body| ResponseBody::own(body, connection, Arc::clone(&self.state.idle))))
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Pool")
    }
}

/// Converts a request to HTTP/1.1: a path as its target, `Host`, and a length if servers insist on
/// one without a body (RFC 9110, 8.6).
fn to_http1(mut request: Request<Body>, host: &HeaderValue) -> Request<Body> {
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

/// Returns the longest idle time: three quarters of the instance's `Keep-Alive: timeout=5,
/// max=100`, and at most [`IDLE_MAX`].
fn idle_max(headers: &HeaderMap) -> Duration {
    let keep_alive = headers.get(&KEEP_ALIVE).and_then(|value| value.to_str().ok());
    let seconds = keep_alive.and_then(|value| {
        let mut parameters = value.split(',').filter_map(|parameter| parameter.split_once('='));
        let timeout = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"));
        timeout?.1.trim().parse::<u32>().ok()
    });
    seconds.map_or(IDLE_MAX, |seconds| IDLE_MAX.min(Duration::from_millis(750) * seconds))
}

/// Returns the origin form of a URI.
fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned();
    path.unwrap_or_else(|| PathAndQuery::from_static("/")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep_alive(value: &'static str) -> Duration {
        let mut headers = HeaderMap::new();
        headers.insert(&KEEP_ALIVE, HeaderValue::from_static(value));
        idle_max(&headers)
    }

    #[test]
    fn a_connection_is_kept_for_less_than_the_instance_keeps_it() {
        assert_eq!(keep_alive("timeout=1"), Duration::from_millis(750));
        assert_eq!(keep_alive("max=100, Timeout = 4"), Duration::from_secs(3));
        assert_eq!(keep_alive("timeout=0"), Duration::ZERO);
    }

    #[test]
    fn a_connection_is_never_kept_for_longer_than_4_s() {
        assert_eq!(IDLE_MAX, Duration::from_secs(4));
        assert_eq!(idle_max(&HeaderMap::new()), IDLE_MAX);
        for value in ["timeout=75", "timeout=4294967295", "timeout", "timeout=soon", "max=5"] {
            assert_eq!(keep_alive(value), IDLE_MAX, "{value}");
        }
    }
}
