//! Correlation headers: `traceparent` and `tracestate` (W3C Trace Context) and `x-request-id`
//! travel from a request to the calls that serve it.
//!
//! A server has the [`CorrelationLayer`]; each [`BalancedChannel`](crate::BalancedChannel) that is
//! called while it serves a request then adds the request's headers, unless the call has its own.
//! Headers from elsewhere go into a [`scope`].
//!
//! Headers are passed on unchanged: this crate starts no spans of a trace. Values over 1 KiB are
//! dropped. A new task starts without any: see [`current`].
//!
//! ```
//! use http::{HeaderMap, HeaderValue};
//! use waypost_client::correlation;
//!
//! # #[tokio::main]
//! # async fn main() {
//! let mut incoming = HeaderMap::new();
//! incoming.insert("x-request-id", HeaderValue::from_static("7"));
//! incoming.insert("cookie", HeaderValue::from_static("secret"));
//! let passed_on = correlation::scope(&incoming, async { correlation::current() }).await;
//! assert_eq!(passed_on.len(), 1);
//! assert_eq!(passed_on["x-request-id"], "7");
//! # }
//! ```

use std::{
    future::Future,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, header::Entry};
use tokio::task::futures::TaskLocalFuture;
use tower::{Layer, Service};

/// The longest value that is passed on: it comes from outside.
const VALUE_MAX: usize = 1024;

static TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACE_STATE: HeaderName = HeaderName::from_static("tracestate");
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

tokio::task_local! {
    static CARRIED: HeaderMap;
}

/// Runs `future` so that its calls carry the correlation headers among `headers`, instead of those
/// of an outer scope. Cancel safe if `future` is.
///
/// ```
/// use http::{HeaderMap, HeaderValue};
/// use waypost_client::{Service, correlation};
///
/// # #[tokio::main]
/// # async fn main() {
/// let channel = Service::fixed([]).channel();
/// let mut headers = HeaderMap::new();
/// headers.insert("x-request-id", HeaderValue::from_static("nightly-7"));
/// correlation::scope(&headers, async {
///     // ... calls over the channel ...
/// #   drop(channel);
/// })
/// .await;
/// # }
/// ```
pub async fn scope<F: Future>(headers: &HeaderMap, future: F) -> F::Output {
    CARRIED.scope(carried(headers), future).await
}

/// Returns the headers that calls made here would carry; none outside of a [`scope`]. A spawned
/// task starts without any: pass these to it, and open a scope there.
///
/// ```
/// use waypost_client::correlation;
///
/// # #[tokio::main]
/// # async fn main() {
/// let headers = correlation::current();
/// tokio::spawn(async move {
///     correlation::scope(&headers, async { /* ... calls ... */ }).await;
/// });
/// # }
/// ```
#[must_use]
pub fn current() -> HeaderMap {
    CARRIED.try_with(HeaderMap::clone).unwrap_or_default()
}

/// Adds the carried headers to a call.
pub(crate) fn pass_on(headers: &mut HeaderMap) {
    // Nothing is carried outside of a scope.
    let _outside = CARRIED.try_with(|carried| add(carried, headers));
}

/// Selects the headers to pass on. A state belongs to its parent, and is dropped without it.
fn carried(headers: &HeaderMap) -> HeaderMap {
    let mut carried = HeaderMap::new();
    let fits = |value: &&HeaderValue| value.len() <= VALUE_MAX;
    for name in [&REQUEST_ID, &TRACE_PARENT] {
        if let Some(value) = headers.get(name).filter(fits) {
            carried.insert(name, value.clone());
        }
    }
    let states: usize = headers.get_all(&TRACE_STATE).iter().map(HeaderValue::len).sum();
    if carried.contains_key(&TRACE_PARENT) && states <= VALUE_MAX {
        for state in headers.get_all(&TRACE_STATE) {
            carried.append(&TRACE_STATE, state.clone());
        }
    }
    carried
}

/// Adds the headers that are absent.
fn add(carried: &HeaderMap, headers: &mut HeaderMap) {
    if let (Some(id), Entry::Vacant(place)) = (carried.get(&REQUEST_ID), headers.entry(&REQUEST_ID))
    {
        place.insert(id.clone());
    }
    if let (Some(parent), Entry::Vacant(place)) =
        (carried.get(&TRACE_PARENT), headers.entry(&TRACE_PARENT))
    {
        place.insert(parent.clone());
        headers.remove(&TRACE_STATE);
        for state in carried.get_all(&TRACE_STATE) {
            headers.append(&TRACE_STATE, state.clone());
        }
    }
}

/// A layer for servers (tonic's, or any that takes tower's layers): passes the correlation headers
/// of a request on to the calls that serve it.
///
/// ```
/// use waypost_client::correlation::CorrelationLayer;
///
/// let server = tonic::transport::Server::builder().layer(CorrelationLayer);
/// # drop(server);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct CorrelationLayer;

impl<S> Layer<S> for CorrelationLayer {
    type Service = Correlated<S>;

    fn layer(&self, inner: S) -> Correlated<S> {
        Correlated { inner }
    }
}

/// A service behind a [`CorrelationLayer`].
///
/// ```
/// use std::convert::Infallible;
///
/// use http::Request;
/// use tower::{Layer as _, Service as _, service_fn};
/// use waypost_client::correlation::{self, CorrelationLayer};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Infallible> {
/// let serve = |_: Request<()>| async { Ok::<_, Infallible>(correlation::current()) };
/// let mut correlated = CorrelationLayer.layer(service_fn(serve));
/// let request = Request::builder().header("x-request-id", "7").body(()).expect("a request");
/// let seen = correlated.call(request).await?;
/// assert_eq!(seen["x-request-id"], "7");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Correlated<S> {
    inner: S,
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for Correlated<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = TaskLocalFuture<HeaderMap, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let carried = carried(request.headers());
        // The service may make calls before its future is polled.
        let answer = CARRIED.sync_scope(carried.clone(), || self.inner.call(request));
        CARRIED.scope(carried, answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers<const N: usize>(headers: [(&'static str, &str); N]) -> HeaderMap {
        let header =
            |(name, value): (_, &str)| (HeaderName::from_static(name), value.parse().unwrap());
        let mut all = HeaderMap::new();
        for (name, value) in headers.map(header) {
            all.append(name, value);
        }
        all
    }

    fn added<const N: usize>(incoming: &HeaderMap, own: [(&'static str, &str); N]) -> HeaderMap {
        let mut own = headers(own);
        add(&carried(incoming), &mut own);
        own
    }

    #[test]
    fn only_correlation_headers_are_passed_on() {
        let wanted = [
            ("traceparent", "00-1-2-01"),
            ("tracestate", "a=1"),
            ("tracestate", "b=2"),
            ("x-request-id", "7"),
        ];
        let mut incoming = headers(wanted);
        incoming.insert("authorization", HeaderValue::from_static("secret"));
        assert_eq!(added(&incoming, []), headers(wanted));
    }

    #[test]
    fn headers_of_the_call_itself_stay() {
        let incoming =
            headers([("traceparent", "theirs"), ("tracestate", "a=1"), ("x-request-id", "7")]);
        let own = [("traceparent", "own"), ("x-request-id", "8")];
        assert_eq!(added(&incoming, own), headers(own));
        // A state without a parent is replaced.
        assert_eq!(added(&incoming, [("tracestate", "own")]), incoming);
    }

    #[test]
    fn a_state_without_its_parent_is_not_passed_on() {
        assert!(carried(&headers([("tracestate", "a=1")])).is_empty());
    }

    #[test]
    fn long_values_are_not_passed_on() {
        let (fits, long) = ("x".repeat(VALUE_MAX), "x".repeat(VALUE_MAX + 1));
        assert_eq!(VALUE_MAX, 1024);
        for (value, passed) in [(&fits, 3), (&long, 0)] {
            let names = ["traceparent", "tracestate", "x-request-id"];
            assert_eq!(carried(&headers(names.map(|name| (name, value.as_str())))).len(), passed);
        }
        let halves = [("traceparent", "p"), ("tracestate", &*fits), ("tracestate", "y")];
        assert_eq!(carried(&headers(halves)).len(), 1);
    }

    #[test]
    fn outside_of_a_scope_nothing_is_carried() {
        let mut headers = HeaderMap::new();
        pass_on(&mut headers);
        assert!(headers.is_empty() && current().is_empty());
    }
}
