//! The tonic adapter: a service that generated clients call, and that sends each call to a picked
//! instance. It must never send a call twice, nor keep one waiting without a deadline.

mod answer;
mod attempt;
mod timeout;
mod tried;

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use tokio::sync::oneshot;
use tonic::{Status, body::Body};

use self::{attempt::Attempt, timeout::timeout, tried::Tried};
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_as_documented() {
        assert_eq!(UNSENT_MAX, Duration::from_secs(5));
    }
}
