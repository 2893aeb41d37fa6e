//! Replicas of the greeter: each a server on a port of its own, healthy or broken in some way.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{net::TcpListener, task::JoinHandle, time::sleep};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, transport::Server};

use crate::greeter::{
    GreetRequest, GreetResponse,
    greeter_server::{Greeter, GreeterServer},
};

/// The behavior of a replica.
#[derive(Clone, Copy, Debug)]
pub enum Behavior {
    /// Responds after a time.
    Responds(Duration),
    /// Fails at once.
    Fails,
    /// Accepts connections and sends nothing.
    Silent,
    /// Refuses connections.
    Refuses,
}

/// A running replica.
#[derive(Debug)]
pub struct Replica {
    address: SocketAddr,
    calls: Arc<AtomicUsize>,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

#[derive(Clone)]
struct Responder {
    behavior: Behavior,
    calls: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl Greeter for Responder {
    async fn greet(&self, _: Request<GreetRequest>) -> Result<Response<GreetResponse>, Status> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if let Behavior::Responds(after) = self.behavior {
            sleep(after).await;
            return Ok(Response::new(GreetResponse::default()));
        }
        Err(Status::unavailable("out of order"))
    }
}

impl Replica {
    /// Starts a replica.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start(behavior: Behavior) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let (calls, stop) = (Arc::<AtomicUsize>::default(), CancellationToken::new());
        let greeter = GreeterServer::new(Responder { behavior, calls: Arc::clone(&calls) });
        let (stopped, stop_silent) = (stop.clone().cancelled_owned(), stop.clone());
        let server = tokio::spawn(async move {
            match behavior {
                Behavior::Refuses => drop(listener),
                Behavior::Silent => {
                    stop_silent.run_until_cancelled(accept_all(listener)).await;
                }
                Behavior::Responds(_) | Behavior::Fails => {
                    let incoming = TcpListenerStream::new(listener);
                    let server = Server::builder().add_service(greeter);
                    let served = server.serve_with_incoming_shutdown(incoming, stopped).await;
                    served.expect("the server stops in order");
                }
            }
        });
        Self { address, calls, stop, server }
    }

    /// Returns the address that it listens at.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns how many calls it received.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Stops accepting connections and waits until the calls in progress have ended.
    ///
    /// # Panics
    /// If the server panicked.
    pub async fn stop(self) {
        self.stop.cancel();
        self.server.await.expect("the server does not panic");
    }
}

async fn accept_all(listener: TcpListener) {
    let mut connections = Vec::new();
    while let Ok(connection) = listener.accept().await {
        connections.push(connection);
    }
}
