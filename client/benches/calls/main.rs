//! Calls to instances that are broken, slow or many: through this crate's channel, and through
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

use std::{env, net::SocketAddr, time::Duration};

use tokio::time::sleep;
use tonic::transport::{Channel, Endpoint};
use waypost_client::{Instance, Service, proto};
use waypost_testing::{
    calls::{
        load::{CALLS_A_SECOND, DEADLINE, LoadedChannel, load},
        replica::{Behavior, Replica},
    },
    greeter::{GreetRequest, greeter_client::GreeterClient},
    process::usage::memory_bytes,
};

const QUICK: Duration = Duration::from_millis(2);
const SLOW: Duration = Duration::from_millis(200);
/// Instances of a service that has many.
const MANY: usize = 5_000;

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
        ("one of three refuses connections", 3, Some(Behavior::Refuses)),
        ("one of three takes connections and stays silent", 3, Some(Behavior::Silent)),
        ("one of three fails fast", 3, Some(Behavior::Fails)),
        ("one of ten answers after 200 ms", 10, Some(Behavior::Responds(SLOW))),
        ("none", 0, None),
    ] {
        println!("{what}");
        let replicas = start(count, odd).await;
        load(LoadedChannel::Waypost(ours(&addresses(&replicas))), sleep(length)).await;
        end(replicas, odd.is_some()).await;
        let replicas = start(count, odd).await;
        load(LoadedChannel::Tonic(tonics(&addresses(&replicas))), sleep(length)).await;
        end(replicas, odd.is_some()).await;
    }
    many().await;
}

/// So many replicas, of which the first may be odd.
async fn start(count: usize, odd: Option<Behavior>) -> Vec<Replica> {
    let mut replicas = Vec::new();
    for index in 0..count {
        let usual = Behavior::Responds(QUICK);
        let behavior = if index == 0 { odd.unwrap_or(usual) } else { usual };
        replicas.push(Replica::start(behavior).await);
    }
    replicas
}

fn addresses(replicas: &[Replica]) -> Vec<SocketAddr> {
    replicas.iter().map(|replica| replica.address()).collect()
}

/// Stops replicas, and shows how many of the calls came to the odd one.
async fn end(replicas: Vec<Replica>, odd: bool) {
    let calls: usize = replicas.iter().map(Replica::calls).sum();
    if odd {
        let share = replicas[0].calls() as f64 * 100.0 / calls as f64;
        println!("           {share:.2} % of those that came to one came to the odd one");
    }
    for replica in replicas {
        replica.stop().await;
    }
}

/// Many instances, most of which are never called.
async fn many() {
    println!("{MANY} instances");
    // All at one place, as no more is needed to call some of them.
    let replica = Replica::start(Behavior::Responds(QUICK)).await;
    let addresses = vec![replica.address(); MANY];
    let before = memory_bytes("self");
    let channel = ours(&addresses);
    for _ in 0..100 {
        GreeterClient::new(channel.clone()).greet(GreetRequest::default()).await.unwrap();
    }
    let each = memory_bytes("self").saturating_sub(before) / MANY as u64;
    println!("  waypost  100 calls served, {each} B of this process's memory for each instance");
    // It panics: elsewhere, and without a word.
    std::panic::set_hook(Box::new(|_| {}));
    let called = tokio::spawn(async move {
        let mut client = GreeterClient::new(tonics(&addresses));
        client.greet(GreetRequest::default()).await.unwrap();
    });
    let what = if called.await.is_ok() { "served" } else { "panicked" };
    drop(std::panic::take_hook());
    println!("  tonic    {what}");
    drop(channel);
    replica.stop().await;
}
