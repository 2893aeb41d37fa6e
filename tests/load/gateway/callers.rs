//! Callers that ask the gateway again and again, and what they get.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::task::JoinHandle;

use crate::support::WAIT_MAX;

/// The outcome of one request.
#[derive(Clone, Debug)]
pub(crate) struct RequestOutcome {
    pub(crate) method: Method,
    pub(crate) sent: Instant,
    pub(crate) done: Instant,
    pub(crate) status: StatusCode,
    /// The body, which names the replica.
    pub(crate) body: String,
}

impl RequestOutcome {
    pub(crate) fn failed(&self) -> bool {
        self.status != StatusCode::OK
    }
}

/// Callers that run until they are stopped.
pub(crate) struct Callers {
    stop: Arc<AtomicBool>,
    callers: Vec<JoinHandle<Vec<RequestOutcome>>>,
}

impl Callers {
    /// Every third request is a POST; between two there is a `pause`.
    pub(crate) fn start(gateway: SocketAddr, callers: usize, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client: Client<_, Full<Bytes>> =
            Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        let caller = |_| {
            let (stop, client) = (Arc::clone(&stop), client.clone());
            tokio::spawn(async move {
                let mut asked = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let method = if asked.len() % 3 == 2 { Method::POST } else { Method::GET };
                    asked.push(ask(&client, gateway, method).await);
                    tokio::time::sleep(pause).await;
                }
                asked
            })
        };
        Self { callers: (0..callers).map(caller).collect(), stop }
    }

    pub(crate) async fn stop(self) -> Vec<RequestOutcome> {
        self.stop.store(true, Ordering::Relaxed);
        let mut asked = Vec::new();
        for caller in self.callers {
            asked.extend(caller.await.expect("no panic"));
        }
        asked
    }
}

async fn ask(
    client: &Client<HttpConnector, Full<Bytes>>,
    gateway: SocketAddr,
    method: Method,
) -> RequestOutcome {
    let request = Request::builder()
        .method(&method)
        .uri(format!("http://{gateway}/orders/7"))
        .body(Full::from("an order"))
        .expect("a request");
    let sent = Instant::now();
    let answered = async {
        let answer = client.request(request).await.expect("the gateway answers");
        let status = answer.status();
        let body = answer.into_body().collect().await.expect("a whole answer").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    };
    let answered = tokio::time::timeout(WAIT_MAX, answered).await;
    let (status, body) = answered.expect("an answer in time");
    RequestOutcome { method, sent, done: Instant::now(), status, body }
}
