//! What calls come to where instances are broken or slow: through this crate's channel, and through
//! tonic's own (`Channel::balance_list`), side by side over the same loopback servers.
//!
//! `cargo bench -p waypost-client --bench calls` (`-- --quick` for a moment of each).
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark reads the clock and runs tasks as its users would"
)]

#[allow(clippy::all, clippy::pedantic, dead_code, unreachable_pub, unused_qualifications)]
#[path = "../examples/greeter/greeter.rs"]
mod greeter;

use std::{
    env,
    net::SocketAddr,
    time::{Duration, Instant},
};

use greeter::{
    GreetRequest, GreetResponse,
    greeter_client::GreeterClient,
    greeter_server::{Greeter, GreeterServer},
};
use http::{Request as HttpRequest, Response as HttpResponse};
use tokio::{net::TcpListener, task::JoinSet, time::sleep};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status,
    body::Body,
    client::GrpcService,
    transport::{Channel, Endpoint, Server},
};
use waypost_client::{Instance, Service, proto};

/// Calls begin at this rate, whatever became of those before.
const CALLS_A_SECOND: u32 = 400;
/// Each gives up after this.
const DEADLINE: Duration = Duration::from_millis(300);
const QUICK: Duration = Duration::from_millis(2);
const SLOW: Duration = Duration::from_millis(200);

/// How an instance is.
#[derive(Clone, Copy)]
enum Manner {
    /// Answers after so long.
    Answers(Duration),
    /// Fails at once.
    Fails,
    /// Takes connections and says nothing.
    Silent,
    /// Takes no connection.
    Refuses,
}

struct Replica(Manner);

#[tonic::async_trait]
impl Greeter for Replica {
    async fn greet(&self, _: Request<GreetRequest>) -> Result<Response<GreetResponse>, Status> {
        if let Manner::Answers(after) = self.0 {
            sleep(after).await;
            return Ok(Response::new(GreetResponse::default()));
        }
        Err(Status::unavailable("out of order"))
    }
}

async fn start(manner: Manner) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    match manner {
        Manner::Refuses => {}
        Manner::Silent => {
            tokio::spawn(async move {
                let mut taken = Vec::new();
                while let Ok(connection) = listener.accept().await {
                    taken.push(connection);
                }
            });
        }
        Manner::Answers(_) | Manner::Fails => {
            let server = Server::builder().add_service(GreeterServer::new(Replica(manner)));
            tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        }
    }
    address
}

/// What calls came to.
struct Tally {
    calls: usize,
    failed: usize,
    /// Of all calls, in order.
    took: Vec<Duration>,
}

impl Tally {
    fn quantile(&self, quantile: f64) -> f64 {
        let index = ((self.took.len() - 1) as f64 * quantile).round() as usize;
        self.took[index].as_secs_f64() * 1e3
    }
}

/// Makes calls at a steady rate.
async fn load<C>(channel: C, length: Duration) -> Tally
where
    C: GrpcService<Body> + Clone + Send + 'static,
    C: tower::Service<HttpRequest<Body>, Response = HttpResponse<C::ResponseBody>>,
    <C as GrpcService<Body>>::Future: Send,
    C::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <C::ResponseBody as http_body::Body>::Error:
        Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    let mut calls = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / CALLS_A_SECOND);
    let began = Instant::now();
    while began.elapsed() < length {
        ticks.tick().await;
        let mut client = GreeterClient::new(channel.clone());
        calls.spawn(async move {
            let mut request = Request::new(GreetRequest::default());
            request.set_timeout(DEADLINE);
            let began = Instant::now();
            // A channel that never gets to its own timeout is given up as well.
            let answer = tokio::time::timeout(DEADLINE * 2, client.greet(request)).await;
            (matches!(answer, Ok(Ok(_))), began.elapsed())
        });
    }
    let answers = calls.join_all().await;
    let failed = answers.iter().filter(|(served, _)| !served).count();
    let mut took: Vec<_> = answers.into_iter().map(|(_, took)| took).collect();
    took.sort_unstable();
    Tally { calls: took.len(), failed, took }
}

fn ours(addresses: &[SocketAddr]) -> waypost_client::BalancedChannel {
    let instance = |(index, address): (usize, &SocketAddr)| Instance {
        service: "greeter".into(),
        id: format!("{index}"),
        host: address.ip().to_string(),
        port: address.port().into(),
        status: proto::Status::Up.into(),
        ..Instance::default()
    };
    Service::fixed(addresses.iter().enumerate().map(instance)).channel()
}

fn tonics(addresses: &[SocketAddr]) -> Channel {
    let endpoint = |address: &SocketAddr| Endpoint::from_shared(format!("http://{address}"));
    Channel::balance_list(addresses.iter().map(|address| endpoint(address).unwrap()))
}

fn tell(name: &str, tally: &Tally) {
    println!(
        "  {name:8} {:6} of {:6} calls failed ({:6.2} %)   p50 {:7.1} ms   p99 {:7.1} ms",
        tally.failed,
        tally.calls,
        tally.failed as f64 * 100.0 / tally.calls as f64,
        tally.quantile(0.5),
        tally.quantile(0.99)
    );
}

#[tokio::main]
async fn main() {
    let quick = env::args().any(|argument| argument == "--quick" || argument == "--test");
    let length = Duration::from_millis(if quick { 300 } else { 10_000 });
    println!(
        "{CALLS_A_SECOND} calls a second for {length:?}, deadlines of {DEADLINE:?}, instances that \
         answer after {QUICK:?}"
    );
    for (what, count, odd) in [
        ("three that are well", 3, None),
        ("one of three refuses connections", 3, Some(Manner::Refuses)),
        ("one of three takes connections and stays silent", 3, Some(Manner::Silent)),
        ("one of three fails fast", 3, Some(Manner::Fails)),
        ("one of ten answers after 200 ms", 10, Some(Manner::Answers(SLOW))),
        ("none", 0, None),
    ] {
        let mut addresses = Vec::new();
        for index in 0..count {
            let usual = Manner::Answers(QUICK);
            let manner = if index == 0 { odd.unwrap_or(usual) } else { usual };
            addresses.push(start(manner).await);
        }
        println!("{what}");
        tell("waypost", &load(ours(&addresses), length).await);
        tell("tonic", &load(tonics(&addresses), length).await);
    }
}
