//! Calls of a channel: retries, headers, limits. Waits for conditions, never for time.

mod correlation;
mod hedges;
mod limits;
mod refusals;
mod retries;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use http::HeaderMap;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use waypost_client::{BalancedChannel, Client, Instance, Service, proto};
use waypost_testing::greeter::{
    GreetRequest, GreetResponse,
    greeter_client::GreeterClient,
    greeter_server::{Greeter, GreeterServer},
};

use crate::support::{Fake, Network, Process};

/// The calls that reached a replica.
#[derive(Clone)]
struct Seen {
    at: String,
    when: Instant,
    headers: HeaderMap,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// The act of a replica on a call.
#[derive(Clone)]
enum Behavior {
    Answer,
    Fail(Status),
    Hang,
    /// Responds once the value is true.
    Wait(watch::Receiver<bool>),
}

/// Replicas, what they do, and what came to them, in its order.
#[derive(Clone)]
struct World {
    network: Network,
    fake: Fake,
    client: Client,
    seen: Arc<Mutex<Vec<Seen>>>,
    _registry: Arc<Process>,
}

impl World {
    fn new() -> Self {
        let (network, fake) = (Network::default(), Fake::new());
        let registry = Arc::new(fake.serve(&network, "registry"));
        let connected = network.clone();
        let connector = tower::service_fn(move |uri| connected.clone().connect(uri));
        let builder = Client::builder().connector(connector).registry("http://registry:7510");
        let client = builder.build().unwrap();
        Self { network, fake, client, seen: Arc::default(), _registry: registry }
    }

    /// A replica that does the same with every call.
    fn replica(&self, id: &str, act: Behavior) -> Process {
        let replica = Replica { id: id.into(), act, seen: Arc::clone(&self.seen) };
        let service = GreeterServer::new(replica);
        let process =
            self.network.start(id, tonic::transport::Server::builder().add_service(service));
        self.fake.place("greeter", id, id);
        process
    }

    /// A channel with this number of instances.
    async fn channel(&self, instances: usize) -> BalancedChannel {
        let channel = self.client.channel("greeter");
        until_seen(channel.service(), instances).await;
        channel
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The replicas that calls reached, in order.
    fn places(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.at).collect()
    }

    async fn until_called(&self, times: usize) {
        until(|| self.seen().len() >= times).await;
    }
}

struct Replica {
    id: String,
    act: Behavior,
    seen: Arc<Mutex<Vec<Seen>>>,
}

#[tonic::async_trait]
impl Greeter for Replica {
    async fn greet(
        &self,
        request: Request<GreetRequest>,
    ) -> Result<Response<GreetResponse>, Status> {
        let headers = request.metadata().clone().into_headers();
        let seen = Seen { at: self.id.clone(), when: Instant::now(), headers };
        self.seen.lock().unwrap().push(seen);
        match &self.act {
            Behavior::Answer => {}
            Behavior::Fail(status) => return Err(status.clone()),
            Behavior::Hang => std::future::pending().await,
            Behavior::Wait(released) => drop(released.clone().wait_for(|released| *released).await),
        }
        let greeting = format!("hello {}", request.into_inner().name);
        Ok(Response::new(GreetResponse { greeting, instance: self.id.clone() }))
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it takes too long")
}

async fn until(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    soon(waiting).await;
}

async fn until_seen(service: &Service, instances: usize) {
    let mut changes = service.changes();
    while soon(changes.next()).await.unwrap().len() != instances {}
}

fn request(name: &str) -> Request<GreetRequest> {
    Request::new(GreetRequest { name: name.into() })
}

async fn call(channel: &BalancedChannel, request: Request<GreetRequest>) -> Result<String, Status> {
    let answer = soon(GreeterClient::new(channel.clone()).greet(request)).await?;
    Ok(answer.into_inner().instance)
}

async fn greet(channel: &BalancedChannel) -> Result<String, Status> {
    call(channel, request("you")).await
}

fn unavailable() -> Behavior {
    Behavior::Fail(Status::unavailable("not now"))
}

/// `UNAVAILABLE`, with a header that sets the time of a retry.
fn come_back(name: &'static str, value: &'static str) -> Behavior {
    let mut status = Status::unavailable("not now");
    status.metadata_mut().insert(name, value.parse().unwrap());
    Behavior::Fail(status)
}

/// The attempts of a call that was sent twice, first to this instance. None fails.
async fn sent_twice(world: &World, channel: &BalancedChannel, first: &str) -> [Seen; 2] {
    let calling = async {
        loop {
            let before = world.seen().len();
            greet(channel).await.unwrap();
            // Two calls in flight may arrive in any order; the header identifies them.
            let mut seen = world.seen().split_off(before);
            seen.sort_by_key(|seen| seen.header("grpc-previous-rpc-attempts").is_some());
            if seen.len() > 1 && seen[0].at == first {
                return seen.try_into().ok().expect("two attempts");
            }
        }
    };
    soon(calling).await
}

/// A service of these ports on this machine.
fn fixed(ports: impl IntoIterator<Item = u16>) -> Service {
    Service::fixed(ports.into_iter().map(|port| Instance {
        service: "greeter".into(),
        id: port.to_string(),
        host: "127.0.0.1".into(),
        port: port.into(),
        status: proto::Status::Up.into(),
        ..Instance::default()
    }))
}
