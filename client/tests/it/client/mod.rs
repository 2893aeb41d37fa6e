//! The client against a registry that is killed, emptied and moved, and against replicas that come
//! and go. Waits for conditions, never for time.

mod calls;
mod draining;
mod heartbeats;
mod logs;
mod registration;
mod views;

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt, stream};
use tonic::{Request, Response, Status};
use waypost_client::{
    BalancedChannel, Client, Registered, Registration, RegistrationState, Service,
};
use waypost_testing::greeter::{
    GreetRequest, GreetResponse,
    greeter_client::GreeterClient,
    greeter_server::{Greeter, GreeterServer},
};

use crate::support::{Fake, Network, Process};

/// A client of the registries with these names.
fn client(network: &Network, registries: &[&str]) -> Client {
    let network = network.clone();
    let connector = tower::service_fn(move |uri| network.clone().connect(uri));
    let builder = Client::builder()
        .connector(connector)
        .backoff(Duration::from_millis(10), Duration::from_millis(100));
    let registries = registries.iter().map(|name| format!("http://{name}:7510"));
    registries.fold(builder, waypost_client::Builder::registry).build().unwrap()
}

fn an_order() -> Registration {
    Registration::new("orders", "10.0.0.1", 80).id("a")
}

fn nameless() -> Registration {
    Registration::new("orders", "10.0.0.1", 80)
}

/// A registry, where it is served, and a client of it.
fn registry() -> (Network, Fake, Process, Client) {
    let (network, fake) = (Network::default(), Fake::new());
    let process = fake.serve(&network, "registry");
    let client = client(&network, &["registry"]);
    (network, fake, process, client)
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it takes too long")
}

/// Waits until the view has exactly these instances.
async fn until_seen(service: &Service, ids: &[&str]) {
    let mut changes = service.changes();
    let seen = async {
        while let Some(snapshot) = changes.next().await {
            if snapshot.instances().map(|instance| &*instance.id).eq(ids.iter().copied()) {
                return;
            }
        }
        panic!("the watch has ended");
    };
    soon(seen).await;
}

async fn until_registered_anew(registered: &Registered, old: u64) {
    let mut state = registered.state();
    let anew = |state: &RegistrationState| matches!(state, RegistrationState::Registered { lease_id } if *lease_id != old);
    soon(state.wait_for(anew)).await.unwrap();
}

struct Replica(String);

#[tonic::async_trait]
impl Greeter for Replica {
    async fn greet(
        &self,
        request: Request<GreetRequest>,
    ) -> Result<Response<GreetResponse>, Status> {
        let name = request.into_inner().name;
        if name == "nobody" || self.0 == "silent" {
            std::future::pending::<()>().await;
        }
        if self.0 == "failing" {
            return Err(Status::unavailable("out of order"));
        }
        let greeting = format!("hello {name}");
        Ok(Response::new(GreetResponse { greeting, instance: self.0.clone() }))
    }
}

fn replica(network: &Network, id: &str) -> Process {
    let service = GreeterServer::new(Replica(id.into()));
    network.start(id, tonic::transport::Server::builder().add_service(service))
}

/// A replica that `fake` knows of.
fn placed(network: &Network, fake: &Fake, id: &str) -> Process {
    fake.place("greeter", id, id);
    replica(network, id)
}

async fn greet(channel: &BalancedChannel) -> Result<String, Status> {
    let request = GreetRequest { name: "you".into() };
    let answer = soon(GreeterClient::new(channel.clone()).greet(request)).await?;
    Ok(answer.into_inner().instance)
}

async fn counts(channel: &BalancedChannel, calls: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..calls {
        *counts.entry(greet(channel).await.unwrap()).or_default() += 1;
    }
    counts
}

/// The number of failed calls, made by eight callers at a time.
async fn failures(channel: &BalancedChannel, calls: usize) -> usize {
    let greet = |_| async {
        let mut request = Request::new(GreetRequest { name: "you".into() });
        request.set_timeout(Duration::from_secs(1));
        soon(GreeterClient::new(channel.clone()).greet(request)).await
    };
    let answers = stream::iter(0..calls).map(greet).buffer_unordered(8);
    answers.filter(|answer| std::future::ready(answer.is_err())).count().await
}
