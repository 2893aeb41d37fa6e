//! The tonic adapter: a service that generated clients call, and that sends each call to a picked
//! instance. It must never send a call twice, nor keep one waiting without a deadline.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tonic::{Code, Status, body::Body};

use crate::{
    balance::{NoInstance, Pick, PickContext},
    clock::{self, Instant},
    connection::{self, Answer, ConnectError, Connection, SendError},
    endpoint::Endpoint,
    outlier::Sign,
    service::{ReadyError, Service},
    tasks,
};

/// The longest that a call waits before it is sent: for the instances to be known, and for
/// connections to be made.
const UNSENT_MAX: Duration = Duration::from_secs(5);

/// A channel to a service, for any client that tonic generates. Each call goes to an instance of its
/// own choice; who comes and goes is followed while calls run. Cheap to clone.
///
/// - Connections are made when they are first needed, and kept. Where an instance takes none, the
///   call goes to another one (each is tried once): after the connect timeout, or after half of what
///   is left of the call's own.
/// - Who fails is left alone for a while, as [`Policy`](crate::Policy) says: who takes no connection,
///   answers with one of the codes that are a server's own fault (`UNAVAILABLE`, `INTERNAL`, `UNKNOWN`,
///   `RESOURCE_EXHAUSTED`, `DEADLINE_EXCEEDED`, `DATA_LOSS`), or lets the call's timeout pass.
/// - A call is sent once. Where its connection breaks after that, it fails with `UNAVAILABLE`, and
///   the next call connects afresh.
/// - Nothing hangs: a call that could not be sent within 5 s (because the registry has not told the
///   instances yet, say), or for which there is no instance, fails with `UNAVAILABLE`, which says
///   why. A timeout that the call's request sets ([`tonic::Request::set_timeout`]) covers all of
///   its way to the answer's head and ends in `DEADLINE_EXCEEDED`.
/// - A call counts as in flight until its answer has been read to the end or dropped, streams
///   included.
///
/// Failures are always answers with a status; the service itself never fails.
///
/// ```
/// use waypost_client::{Client, proto::discovery_client::DiscoveryClient};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), waypost_client::BuildError> {
/// let client = Client::new("http://127.0.0.1:7510")?;
/// // Any generated client does; this one happens to be at hand.
/// let registries = DiscoveryClient::new(client.channel("registries"));
/// # drop(registries);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct BalancedChannel {
    service: Service,
}

impl tower::Service<Request<Body>> for BalancedChannel {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let channel = self.clone();
        ResponseFuture(Box::pin(async move {
            Ok(channel.answer(request).await.unwrap_or_else(|status| status.into_http()))
        }))
    }
}

/// The answer to a call, to come. Dropping it cancels the call. Clients that tonic generates wait for
/// it by themselves.
///
/// ```
/// use tower::Service as _;
/// use waypost_client::Service;
///
/// # #[tokio::main]
/// # async fn main() {
/// let mut channel = Service::fixed([]).channel();
/// let request = http::Request::new(tonic::body::Body::empty());
/// let Ok(answer) = channel.call(request).await;
/// // No instance: UNAVAILABLE is 14.
/// assert_eq!(answer.headers()["grpc-status"], "14");
/// # }
/// ```
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture(Answer);

impl Future for ResponseFuture {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ResponseFuture")
    }
}

impl Service {
    /// A channel that generated tonic clients can call this service through.
    ///
    /// ```
    /// # use waypost_client::Service;
    /// let channel = Service::fixed([]).channel();
    /// # drop(channel);
    /// ```
    #[must_use]
    pub fn channel(&self) -> BalancedChannel {
        BalancedChannel::new(self.clone())
    }
}

impl BalancedChannel {
    pub(crate) fn new(service: Service) -> Self {
        Self { service }
    }

    /// The service that this calls.
    ///
    /// ```
    /// use waypost_client::Service;
    ///
    /// let channel = Service::fixed([]).channel();
    /// assert!(channel.service().snapshot().is_some());
    /// ```
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.service
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        match timeout(request.headers()) {
            None => self.dispatch(request, None).await,
            Some(limit) => {
                let late = || Err(Status::deadline_exceeded("the call's timeout has passed"));
                let answered = self.dispatch(request, Some(clock::now() + limit));
                clock::within(limit, answered).await.unwrap_or_else(late)
            }
        }
    }

    async fn dispatch(
        &self,
        mut request: Request<Body>,
        deadline: Option<Instant>,
    ) -> Result<Response<Body>, Status> {
        let give_up = clock::now() + UNSENT_MAX;
        let mut tried = Tried::default();
        loop {
            let left = give_up.saturating_duration_since(clock::now());
            let found = clock::within(left, self.connect(&mut tried, deadline)).await;
            let (pick, connection) = found.unwrap_or_else(|| Err(self.too_late(&tried)))?;
            let attempt = Attempt::begin(pick, deadline);
            match connection.clone().send(request).await {
                Ok(response) => return Ok(attempt.answered(response)),
                Err(SendError::Unsent(unsent)) => {
                    // The connection ended before; another one to the same place may do, once.
                    let pick = attempt.unsent();
                    pick.endpoint().slot().forget(&connection);
                    tried.note_closed(Arc::clone(pick.endpoint()));
                    request = *unsent;
                }
                Err(SendError::Lost(error)) => {
                    let pick = attempt.lost();
                    pick.endpoint().slot().forget(&connection);
                    return Err(connection::lost(&pick.address(), &error));
                }
            }
        }
    }

    /// Picks an instance that takes a connection. Those that don't are noted in `tried`.
    async fn connect(
        &self,
        tried: &mut Tried,
        deadline: Option<Instant>,
    ) -> Result<(Pick, Connection), Status> {
        if self.service.snapshot().is_none() {
            self.service.ready().await.map_err(|error| self.unready(&error))?;
        }
        loop {
            let pick = self.pick(tried)?;
            let endpoint = pick.endpoint();
            if let Some(connection) = endpoint.slot().current() {
                return Ok((pick, connection));
            }
            // Half of the time that is left: the other half is for another instance.
            let left = |deadline: Instant| deadline.saturating_duration_since(clock::now());
            let limit = deadline.map_or(UNSENT_MAX, |deadline| left(deadline) / 2);
            let dialed = clock::within(limit, self.dial(endpoint)).await;
            match dialed {
                Some(Ok(connection)) => return Ok((pick, connection)),
                Some(Err(error)) => tried.note(Arc::clone(endpoint), error),
                None => {
                    endpoint.note(Sign::Unreached, Duration::ZERO);
                    let address = endpoint.address().into();
                    tried.note(Arc::clone(endpoint), ConnectError::Late { address, limit });
                }
            }
        }
    }

    /// Connects to an instance. That goes on where the caller gives up: the next one finds the
    /// connection, or that there is none.
    async fn dial(&self, endpoint: &Arc<Endpoint>) -> Result<Connection, ConnectError> {
        let (task, dialer) = (Arc::clone(endpoint), self.service.dialer().clone());
        let (answer, dialed) = oneshot::channel();
        tasks::spawn("dial", async move {
            let connected = task.slot().connection(&dialer, task.address()).await;
            if connected.is_err() {
                task.note(Sign::Unreached, Duration::ZERO);
            }
            // Whoever waited may have given up.
            let _gone = answer.send(connected);
        });
        // The runtime may be on its way down.
        let gone = |_| Err(ConnectError::Closed { address: endpoint.address().into() });
        dialed.await.unwrap_or_else(gone)
    }

    /// An instance that was not tried.
    fn pick(&self, tried: &Tried) -> Result<Pick, Status> {
        let untried = |endpoint: &Endpoint| !tried.contains(endpoint);
        let pick = self.service.pick_where(&PickContext::new(), untried);
        pick.map_err(|reason| self.none(reason))?.ok_or_else(|| self.exhausted(tried))
    }

    fn none(&self, reason: NoInstance) -> Status {
        Status::unavailable(format!("no instance of {}: {reason}", self.service.name()))
    }

    fn unready(&self, error: &ReadyError) -> Status {
        Status::unavailable(format!("no instance of {}: {error}", self.service.name()))
    }

    fn exhausted(&self, tried: &Tried) -> Status {
        let service = self.service.name();
        let count = tried.endpoints.len();
        let last = tried.last.as_ref().map(|error| format!(", the last one: {error}"));
        let last = last.unwrap_or_default();
        Status::unavailable(format!("none of {count} instances of {service} was reached{last}"))
    }

    fn too_late(&self, tried: &Tried) -> Status {
        match tried.last {
            None if self.service.snapshot().is_none() => self.none(NoInstance::NotReady),
            _ => self.exhausted(tried),
        }
    }
}

/// The instances that took no connection for this call.
#[derive(Default)]
struct Tried {
    endpoints: Vec<Arc<Endpoint>>,
    last: Option<ConnectError>,
    /// Those whose connection had ended when the call was to be sent.
    closed: Vec<Arc<Endpoint>>,
}

impl Tried {
    fn contains(&self, endpoint: &Endpoint) -> bool {
        self.endpoints.iter().any(|tried| tried.is_at(endpoint))
    }

    fn note(&mut self, endpoint: Arc<Endpoint>, error: ConnectError) {
        self.endpoints.push(endpoint);
        self.last = Some(error);
    }

    /// Notes a connection that had ended; the second time the instance counts as tried.
    fn note_closed(&mut self, endpoint: Arc<Endpoint>) {
        if self.closed.iter().any(|closed| closed.is_at(&endpoint)) {
            let address = endpoint.address().into();
            self.note(endpoint, ConnectError::Closed { address });
        } else {
            self.closed.push(endpoint);
        }
    }
}

/// A call that was sent, until it is answered or given up.
struct Attempt {
    /// Gone once it was answered.
    pick: Option<Pick>,
    began: Instant,
    /// When the caller's patience ends, where that is known.
    deadline: Option<Instant>,
}

impl Attempt {
    fn begin(pick: Pick, deadline: Option<Instant>) -> Self {
        Self { pick: Some(pick), began: clock::now(), deadline }
    }

    fn end(mut self) -> (Pick, Duration) {
        let pick = self.pick.take().expect("it is gone with the attempt alone");
        (pick, clock::now() - self.began)
    }

    fn answered(self, response: Response<Incoming>) -> Response<Body> {
        let (pick, took) = self.end();
        // An answer without a body says in its head how the call went.
        let failed = response.status().is_server_error() || is_failure(response.headers());
        if failed {
            pick.endpoint().note(Sign::Bad, took);
        }
        let call = Call { pick, took: (!failed).then_some(took) };
        response.map(|body| Body::new(Counted { body, call: Some(call) }))
    }

    fn unsent(self) -> Pick {
        self.end().0
    }

    fn lost(self) -> Pick {
        let (pick, took) = self.end();
        pick.endpoint().note(Sign::Bad, took);
        pick
    }
}

impl Drop for Attempt {
    /// Nobody waits any more: because it took too long, or for the caller's own reasons.
    fn drop(&mut self) {
        let Some(pick) = &self.pick else { return };
        let now = clock::now();
        let took = now - self.began;
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            pick.endpoint().note(Sign::Bad, took);
        } else {
            pick.endpoint().note_given_up(took);
        }
    }
}

/// Whether trailers, or the head of an answer without any, say that the instance did not serve the
/// call and might not serve the next one either.
fn is_failure(headers: &HeaderMap) -> bool {
    Status::from_header_map(headers).is_some_and(|status| {
        matches!(
            status.code(),
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::ResourceExhausted
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        )
    })
}

/// A call whose answer is being read.
struct Call {
    pick: Pick,
    /// Until the answer's head, where it is still to be seen how the call went.
    took: Option<Duration>,
}

impl Call {
    fn end(self, failed: bool) {
        if let Some(took) = self.took {
            let sign = if failed { Sign::Bad } else { Sign::Good };
            self.pick.endpoint().note(sign, took);
        }
    }
}

/// An answer's body, which keeps the call counted as in flight.
struct Counted {
    body: Incoming,
    /// Gone once the body has ended.
    call: Option<Call>,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let frame = frame.map(|frame| {
            frame.map_err(|error| Status::unavailable(format!("the answer broke off: {error}")))
        });
        // Trailers end a call; whoever read them does not always ask for more.
        let failed = match &frame {
            Some(Ok(frame)) => frame.trailers_ref().map(is_failure),
            Some(Err(_)) => Some(true),
            None => Some(false),
        };
        if let Some(failed) = failed
            && let Some(call) = self.call.take()
        {
            call.end(failed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Counted {
    /// Who stops reading has been answered.
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            call.end(false);
        }
    }
}

/// The call's timeout, as the gRPC protocol writes it: up to 8 digits and a unit.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", value.parse().unwrap());
        timeout(&headers)
    }

    #[test]
    fn waits_are_as_documented() {
        assert_eq!(UNSENT_MAX, Duration::from_secs(5));
    }

    #[test]
    fn timeouts_are_read_as_the_protocol_writes_them() {
        assert_eq!(parsed("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parsed("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(parsed("0n"), Some(Duration::ZERO));
        assert_eq!(timeout(&HeaderMap::new()), None);
    }

    #[test]
    fn what_is_no_timeout_is_left_to_the_server() {
        for value in ["", "m", "5", "-5m", "+5m", "999999999S", "5 S", "5d", "1.5S"] {
            assert_eq!(parsed(value), None, "{value:?}");
        }
    }
}
