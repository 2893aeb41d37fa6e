//! A registry in memory, for tests of programs that use this crate. With the feature `fake`.
//!
//! [`Registry::client`] returns a client like any other: its registrations, views, picks and
//! channels are those of production, and send gRPC to the registry over pipes in this process
//! instead of a network. The test controls the registry: instances [join](Registry::join),
//! [change](Registry::update), [leave](Registry::leave) and [expire](Registry::expire); it is
//! [unreachable](Registry::outage), [loses its data](Registry::forget), [is slow](Registry::delay)
//! or [refuses](Registry::refuse). The test also reads the registered
//! [instances](Registry::instances), and the numbers of [heartbeats](Registry::heartbeats) and
//! [watches](Registry::watchers).
//!
//! Add it for tests only:
//!
//! ```toml
//! [dev-dependencies]
//! tokio = { version = "1", features = ["macros", "rt", "test-util"] }
//! waypost-client = { version = "0.1", features = ["fake"] }
//! ```
//!
//! # A test
//!
//! Two instances run in the process itself, one of which dies; then the registry becomes
//! unreachable and restarts without its data. Time is paused: half a minute of a client takes no
//! time.
//!
//! ```
//! # use waypost_testing::greeter;
//! use std::time::Duration;
//!
//! use greeter::{
//!     GreetRequest, GreetResponse,
//!     greeter_client::GreeterClient,
//!     greeter_server::{Greeter, GreeterServer},
//! };
//! use tonic::{Request, Response, Status};
//! use waypost_client::{Registration, fake};
//!
//! struct Named(&'static str);
//!
//! #[tonic::async_trait]
//! impl Greeter for Named {
//!     async fn greet(&self, _: Request<GreetRequest>) -> Result<Response<GreetResponse>, Status> {
//!         let instance = self.0.to_owned();
//!         Ok(Response::new(GreetResponse { greeting: "hello".to_owned(), instance }))
//!     }
//! }
//!
//! // #[tokio::test(start_paused = true)]
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> { calls_go_on().await }
//! async fn calls_go_on() -> Result<(), Box<dyn std::error::Error>> {
//!     let registry = fake::Registry::new();
//!     for (id, host) in [("a", "10.0.0.1"), ("b", "10.0.0.2")] {
//!         registry.serve(&format!("{host}:80"), GreeterServer::new(Named(id)));
//!         registry.join(Registration::new("greeter", host, 80).id(id));
//!     }
//!     let channel = registry.client().channel("greeter");
//!     let mut greeter = GreeterClient::new(channel.clone());
//!     greeter.greet(GreetRequest::default()).await?;
//!
//!     // One dies, and the registry has not noticed yet. Paused time passes once all that is under
//!     // way has come to rest: the broken connection has been seen.
//!     registry.stop("10.0.0.1:80");
//!     tokio::time::sleep(Duration::from_millis(1)).await;
//!     for _ in 0..20 {
//!         assert_eq!(greeter.greet(GreetRequest::default()).await?.into_inner().instance, "b");
//!     }
//!
//!     // The registry is away, for as long as it likes.
//!     registry.outage();
//!     tokio::time::sleep(Duration::from_secs(600)).await;
//!     assert_eq!(greeter.greet(GreetRequest::default()).await?.into_inner().instance, "b");
//!
//!     // It comes back without its memory, and one instance has found its way to it.
//!     registry.forget();
//!     registry.join(Registration::new("greeter", "10.0.0.2", 80).id("b"));
//!     registry.restore();
//!     let mut changes = channel.service().changes();
//!     while changes.next().await.is_some_and(|snapshot| snapshot.len() != 1) {}
//!     assert_eq!(greeter.greet(GreetRequest::default()).await?.into_inner().instance, "b");
//!     Ok(())
//! }
//! ```
//!
//! # Details
//!
//! - It runs the state machine of the server (the crate `waypost-core`), and passes the server's
//!   suite of tests: revisions, snapshots, changes, resumed watches, filters, pages, take-overs and
//!   fenced leases, idle messages, refusals that name the fields. It has no `Admin`, and no limits
//!   of sizes and counts in requests.
//! - Leases expire on request, never by time: a client that is dropped without deregistration stays
//!   registered.
//! - With paused time a test is repeatable, except for random choices: seed those with
//!   [`fastrand::seed`](https://docs.rs/fastrand/latest/fastrand/fn.seed.html) in a runtime of one
//!   thread. Serve instances with [`Registry::serve`] then: paused time skips the time that a
//!   network takes, and timeouts pass.

mod convert;
mod handlers;
mod network;
mod registry;
mod script;
mod shared;
mod state;
mod watch;

pub use self::registry::Registry;
