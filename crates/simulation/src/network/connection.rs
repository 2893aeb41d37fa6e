//! One HTTP/2 connection for the generated stubs. It never reconnects, so that all its responses
//! come from one start of the registry.

use std::{future::Future, pin::Pin, task, time::Duration};

use http::{Request, Response, Uri, header::AUTHORIZATION};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tonic::body::Body;

use crate::{access::authorization, network::socket::Process};

/// A connection.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    requests: http2::SendRequest<Body>,
    /// The name of the token that each request carries.
    token: Option<String>,
}

/// The keep-alive of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// Sends keep-alive pings.
    Watchful,
    /// Waits without a limit.
    Patient,
}

impl Wire {
    /// Connects, with a window of unread bytes.
    #[expect(clippy::disallowed_methods, reason = "the process of a simulated host")]
    pub(crate) async fn open(process: &Process, window: u32, keeping: Keeping) -> Option<Self> {
        let stream = process.clone().connect().await.ok()?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).initial_stream_window_size(window);
        if keeping == Keeping::Watchful {
            builder
                .keep_alive_interval(Duration::from_secs(5))
                .keep_alive_timeout(Duration::from_secs(2))
                .keep_alive_while_idle(true);
        }
        let (requests, connection) = builder.handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(async move {
            let _broken = connection.await;
        });
        Some(Self { requests, token: process.token.clone() })
    }

    /// The registry's origin, for stubs.
    pub(crate) fn origin() -> Uri {
        Uri::from_static("http://registry:7510")
    }
}

impl tower::Service<Request<Body>> for Wire {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(
        &mut self,
        context: &mut task::Context<'_>,
    ) -> task::Poll<Result<(), Self::Error>> {
        self.requests.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(name) = &self.token {
            request.headers_mut().insert(AUTHORIZATION, authorization(name));
        }
        Box::pin(self.requests.send_request(request))
    }
}
