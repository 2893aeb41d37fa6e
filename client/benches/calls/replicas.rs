//! Replicas to call: each a server on a port of its own, which is well or not.

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

use waypost_testing::greeter::{
    GreetRequest, GreetResponse,
    greeter_server::{Greeter, GreeterServer},
};

/// How an instance is.
#[derive(Clone, Copy)]
pub(crate) enum Manner {
    /// Answers after so long.
    Answers(Duration),
    /// Fails at once.
    Fails,
    /// Takes connections and says nothing.
    Silent,
    /// Takes no connection.
    Refuses,
}

/// A running replica.
pub(crate) struct Replica {
    pub(crate) address: SocketAddr,
    calls: Arc<AtomicUsize>,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

#[derive(Clone)]
struct Answers {
    manner: Manner,
    calls: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl Greeter for Answers {
    async fn greet(&self, _: Request<GreetRequest>) -> Result<Response<GreetResponse>, Status> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if let Manner::Answers(after) = self.manner {
            sleep(after).await;
            return Ok(Response::new(GreetResponse::default()));
        }
        Err(Status::unavailable("out of order"))
    }
}

impl Replica {
    pub(crate) async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (calls, stop) = (Arc::<AtomicUsize>::default(), CancellationToken::new());
        let greeter = GreeterServer::new(Answers { manner, calls: Arc::clone(&calls) });
        let (stopped, stop_silent) = (stop.clone().cancelled_owned(), stop.clone());
        let server = tokio::spawn(async move {
            match manner {
                Manner::Refuses => drop(listener),
                Manner::Silent => {
                    let taken = take_all(listener);
                    stop_silent.run_until_cancelled(taken).await;
                }
                Manner::Answers(_) | Manner::Fails => {
                    let incoming = TcpListenerStream::new(listener);
                    let server = Server::builder().add_service(greeter);
                    server.serve_with_incoming_shutdown(incoming, stopped).await.unwrap();
                }
            }
        });
        Self { address, calls, stop, server }
    }

    /// How many calls came.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Takes no more connections, and ends when the calls under way have ended.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.server.await.unwrap();
    }
}

async fn take_all(listener: TcpListener) {
    let mut taken = Vec::new();
    while let Ok(connection) = listener.accept().await {
        taken.push(connection);
    }
}
