//! Shows the main job on real processes, on loopback: a registry, three replicas of a service and a
//! caller that balances over them. A replica is killed with `kill -9`, another one is started, and
//! the traffic moves. Ends by itself after about ten seconds.
//!
//! ```sh
//! cargo run --release --example demo
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a demonstration")]

#[allow(
    clippy::all,
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    reason = "generated"
)]
#[path = "../client/examples/greeter/greeter.rs"]
mod greeter;

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    future::pending,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use greeter::{
    GreetRequest, GreetResponse,
    greeter_client::GreeterClient,
    greeter_server::{Greeter, GreeterServer},
};
use tokio::{net::TcpListener, time::interval};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use waypost::{Config, Server, config::StoreKind};
use waypost_client::{BalancedChannel, Client, Registration, Snapshot};

/// Short, so that the demonstration is.
const TTL: Duration = Duration::from_secs(2);
const CALL_INTERVAL: Duration = Duration::from_millis(10);
const CALLS_A_ROUND: u32 = 100;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["registry"] => serve_registry().await,
        ["replica", id, registry] => serve_replica(id, registry).await,
        _ => show().await,
    }
}

async fn show() -> Outcome<()> {
    let registry = Process::start(&["registry"])?;
    let url = format!("http://{}", registry.line);
    println!("a registry serves at {url}");
    let mut replicas = BTreeMap::new();
    for id in ["replica-1", "replica-2", "replica-3"] {
        replicas.insert(id, Process::start(&["replica", id, &url])?);
    }
    let client = Client::new(&*url)?;
    let service = client.service("greeter");
    service.ready().await?;
    let mut calls = Calls { greeter: GreeterClient::new(client.channel("greeter")), failed: 0 };
    let mut seen = Vec::new();
    for round in 1..=9 {
        match round {
            3 => {
                println!("-- kill -9 of replica-2, which says goodbye to nobody");
                replicas.remove("replica-2");
            }
            6 => {
                println!("-- replica-4 is started");
                replicas.insert("replica-4", Process::start(&["replica", "replica-4", &url])?);
            }
            _ => {}
        }
        let answers = calls.round().await;
        tell_members(&mut seen, service.snapshot().as_deref());
        let answers: Vec<_> = answers.iter().map(|(id, count)| format!("{id} {count:3}")).collect();
        println!("{round:2} s  answered by  {}", answers.join("   "));
    }
    println!("{} of {} calls failed", calls.failed, 9 * CALLS_A_ROUND);
    Ok(())
}

/// Says who came and who went.
fn tell_members(seen: &mut Vec<String>, snapshot: Option<&Snapshot>) {
    let members: Vec<String> = snapshot
        .map(|snapshot| snapshot.instances().map(|instance| instance.id.clone()).collect())
        .unwrap_or_default();
    for id in members.iter().filter(|id| !seen.contains(id)) {
        println!("      + {id} is in the registry");
    }
    for id in seen.iter().filter(|id| !members.contains(id)) {
        println!("      - {id} is gone from the registry");
    }
    *seen = members;
}

struct Calls {
    greeter: GreeterClient<BalancedChannel>,
    failed: u32,
}

impl Calls {
    /// Calls at a steady pace; how often each replica answered.
    async fn round(&mut self) -> BTreeMap<String, u32> {
        let mut answers = BTreeMap::new();
        let mut pace = interval(CALL_INTERVAL);
        for _ in 0..CALLS_A_ROUND {
            pace.tick().await;
            let request = GreetRequest { name: "demo".to_owned() };
            match self.greeter.greet(request).await {
                Ok(answer) => *answers.entry(answer.into_inner().instance).or_default() += 1,
                Err(status) => {
                    self.failed += 1;
                    println!("      a call failed: {}", status.message());
                }
            }
        }
        answers
    }
}

/// This program in another part, ended with `kill -9` when dropped.
struct Process {
    child: Child,
    /// What it said when it was ready.
    line: String,
}

impl Process {
    fn start(words: &[&str]) -> Outcome<Self> {
        let mut child =
            Command::new(env::current_exe()?).args(words).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        Ok(Self { child, line: line.trim().to_owned() })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only where the process has ended already.
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

async fn serve_registry() -> Outcome<()> {
    let (listen, store) = ("127.0.0.1:0".parse()?, StoreKind::Memory);
    let config = Config { listen, store, ..Config::default() };
    let server = Server::bind(config)?;
    println!("{}", server.address());
    server.run(pending()).await?;
    Ok(())
}

async fn serve_replica(id: &str, registry: &str) -> Outcome<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let registration =
        Registration::new("greeter", address.ip().to_string(), address.port()).id(id).ttl(TTL);
    let registered = Client::new(registry)?.register(registration).await?;
    println!("registered");
    let service = GreeterServer::new(Replica { id: registered.instance().id.clone() });
    let serving = tonic::transport::Server::builder().add_service(service);
    serving.serve_with_incoming(TcpListenerStream::new(listener)).await?;
    Ok(())
}

struct Replica {
    id: String,
}

#[tonic::async_trait]
impl Greeter for Replica {
    async fn greet(
        &self,
        request: Request<GreetRequest>,
    ) -> Result<Response<GreetResponse>, Status> {
        let greeting = format!("hello {}", request.into_inner().name);
        Ok(Response::new(GreetResponse { greeting, instance: self.id.clone() }))
    }
}
