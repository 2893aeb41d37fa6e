//! A registry in memory, for tests of programs that use this crate. With the feature `fake`.
//!
//! [`Registry::client`] gives a client like any other: its registrations, views, picks and channels are
//! the ones that run in production, and they talk gRPC to the registry, over pipes in this process
//! instead of a network. The test says what happens to the registry: instances [join](Registry::join),
//! [change](Registry::update), [leave](Registry::leave) and [expire](Registry::expire); it is
//! [away](Registry::outage), [forgets](Registry::forget), [is late](Registry::delay) or
//! [refuses](Registry::refuse). And it sees [who is registered](Registry::instances), and how
//! [heartbeats](Registry::heartbeats) and [watches](Registry::watchers) come in.
//!
//! Add it for tests alone:
//!
//! ```toml
//! [dev-dependencies]
//! tokio = { version = "1", features = ["macros", "rt", "test-util"] }
//! waypost-client = { version = "0.1", features = ["fake"] }
//! ```
//!
//! # A test
//!
//! Two instances that are served in the process itself, one of which dies; then the registry goes away
//! and comes back without its memory. Time is paused: what takes a client half a minute takes the
//! test no time at all.
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
//! # What to know
//!
//! - It runs the state machine of the server (the crate `waypost-core`), and passes the suite of
//!   tests that the server passes: revisions, snapshots, changes, resumed watches, filters, pages,
//!   take-overs and fenced leases, idle messages, refusals that name the fields. It has no `Admin`,
//!   and no limits of sizes and counts in requests.
//! - Leases expire on request, never by time: a client that is dropped without a word stays
//!   registered.
//! - With paused time a test is repeatable to the letter, up to random choices: seed those with
//!   [`fastrand::seed`](https://docs.rs/fastrand/latest/fastrand/fn.seed.html) in a runtime of one
//!   thread. Place instances with [`Registry::serve`] then: paused time leaps over whatever a network
//!   takes, and timeouts pass.

mod convert;
mod handlers;
mod network;
mod registry;
mod script;
mod shared;
mod state;
mod watch;

pub use self::registry::Registry;
