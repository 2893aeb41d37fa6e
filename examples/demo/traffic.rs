//! The requests: from a number of callers, each of which has one under way, at a steady pace.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::Deserialize;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Outcome,
    figures::{Kind, Tally},
    journal::{Event, Journal},
    orders::{self, Order},
};

const CALLERS: u32 = 20;
/// The interval of each caller's requests. An unoptimized build takes several times as long.
const CALL_INTERVAL: Duration =
    Duration::from_millis(if cfg!(debug_assertions) { 100 } else { 25 });
/// Longer than any request where all is well.
const CALL_MAX: Duration = Duration::from_secs(10);
/// One of this number of requests is a POST.
const POSTS: u32 = 5;

pub(crate) struct Traffic {
    callers: JoinSet<()>,
    stop: CancellationToken,
}

#[derive(Clone)]
struct Caller {
    client: Client<HttpConnector, Full<Bytes>>,
    gateway: SocketAddr,
    tally: Tally,
    journal: Journal,
}

/// A problem document of the gateway (RFC 9457).
#[derive(Deserialize)]
struct Problem {
    title: String,
    detail: String,
}

impl Traffic {
    pub(crate) fn start(gateway: SocketAddr, tally: &Tally, journal: &Journal) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let (tally, journal) = (tally.clone(), journal.clone());
        let caller = Caller { client, gateway, tally, journal };
        let stop = CancellationToken::new();
        let callers = (0..CALLERS).map(|first| caller.clone().run(first, stop.clone())).collect();
        Self { callers, stop }
    }

    /// Sends no more, and waits for what is under way.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.callers.join_all().await;
    }
}

impl Caller {
    async fn run(self, first: u32, stop: CancellationToken) {
        let mut pace = interval(CALL_INTERVAL);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in (first..).step_by(CALLERS as usize) {
            if stop.run_until_cancelled(pace.tick()).await.is_none() {
                return;
            }
            self.call(number).await;
        }
    }

    async fn call(&self, number: u32) {
        let (method, kind) = match number / CALLERS % POSTS {
            0 => (Method::POST, Kind::Other),
            _ => (Method::GET, Kind::Idempotent),
        };
        let began = Instant::now();
        let answered = match timeout(CALL_MAX, self.ask(&method, number)).await {
            Ok(answered) => answered,
            Err(late) => Err(late.into()),
        };
        match answered {
            Ok(Order { by, price, .. }) => {
                self.tally.answered(kind, began.elapsed(), [&by, &price.by]);
            }
            Err(error) => {
                self.tally.failed(kind);
                self.journal.note(Event::Failed(format!("{method} of order {number}: {error}")));
            }
        }
    }

    /// Looks up an order, or places it.
    async fn ask(&self, method: &Method, number: u32) -> Outcome<Order> {
        let (gateway, service) = (self.gateway, orders::SERVICE);
        let (path, body) = match *method {
            Method::POST => (String::new(), number.to_string()),
            _ => (format!("/{number}"), String::new()),
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{gateway}/{service}{path}"))
            .header(header::CONTENT_TYPE, "application/json");
        let answer = self.client.request(request.body(body.into())?).await?;
        let (status, id) = (answer.status(), answer.headers().get("x-request-id").cloned());
        let body = answer.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            return Err(problem(&body).unwrap_or_else(|| status.to_string()).into());
        }
        let order: Order = serde_json::from_slice(&body)?;
        // The id went along, from the gateway to the last replica.
        if order.number != number || id.is_none_or(|id| id != order.price.request_id) {
            return Err("the answer is another request's".into());
        }
        Ok(order)
    }
}

fn problem(body: &[u8]) -> Option<String> {
    let Problem { title, detail } = serde_json::from_slice(body).ok()?;
    Some(format!("{title}: {detail}"))
}
