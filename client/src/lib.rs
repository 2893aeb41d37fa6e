//! Client of the Waypost service-discovery registry.
//!
//! Instances of services come and go; a registry knows who is there. This crate puts a process into
//! the registry, and shows it the others, as they are now, so that each call goes to an instance that is
//! likely to answer it soon.
//!
//! # Ten minutes
//!
//! **A client** is built once, connects when it is first used, and is cheap to clone:
//!
//! ```
//! use waypost_client::Client;
//!
//! # fn main() -> Result<(), waypost_client::BuildError> {
//! let client = Client::builder()
//!     .registry("http://10.0.0.1:7510")
//!     .registry("http://10.0.0.2:7510")
//!     .build()?;
//! # drop(client);
//! # Ok(())
//! # }
//! ```
//!
//! **Registering**: [`Client::register`] puts an instance into the registry, and keeps it there for as
//! long as the returned guard is held. [`Client::register_in_background`] does so without waiting for the registry;
//! [`Registration::ready_when`] lets the status follow the process's own health; and
//! [`Registered::drain`] leaves without failing a call.
//!
//! ```no_run
//! # async fn example(client: waypost_client::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use waypost_client::Registration;
//!
//! let registered = client.register(Registration::new("billing", "10.0.0.7", 8080)).await?;
//! // ... serve, until SIGTERM ...
//! registered.drain(Duration::from_secs(10)).await;
//! # Ok(())
//! # }
//! ```
//!
//! **Calling**: [`Client::channel`] is a channel for any client that tonic generates. Each call goes to an
//! instance of its own choice; who takes no connection or fails is left alone for a while. Sending again
//! what is [idempotent](BalancedChannel::retry_idempotent), a second attempt beside a
//! [slow one](BalancedChannel::hedge_idempotent), a bound of the
//! [calls in flight](BalancedChannel::concurrency_limit) are asked for, channel by channel.
//!
//! ```no_run
//! # fn example(client: waypost_client::Client) {
//! // let orders = OrdersClient::new(client.channel("orders"));
//! let reading = client.channel("orders").retry_idempotent(3).concurrency_limit(100);
//! # drop(reading);
//! # }
//! ```
//!
//! **Choosing for oneself**, for any transport: [`Client::service`] follows a service, and
//! [`Service::pick`] chooses, in nanoseconds and without a runtime. Keep the [`Pick`] until the call has
//! ended, and [report](Pick::report) what it came to. The [`Policy`] says how calls are spread;
//! `Service::with_…` says over whom: a zone, a version, a subset.
//!
//! ```no_run
//! # async fn example(client: waypost_client::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Instant;
//! use waypost_client::{Outcome, PickContext};
//!
//! let orders = client.service("orders").with_zone("eu-1");
//! orders.ready().await?;
//! let pick = orders.pick(&PickContext::new())?;
//! let began = Instant::now();
//! println!("calling {} at {}", pick.instance().id, pick.address());
//! pick.report(Outcome::Success, began.elapsed());
//! # Ok(())
//! # }
//! ```
//!
//! **When the registry is away**, for as long as it likes: what is known stays known, calls go on, and
//! everything finds its way back by itself, jittered. A registry that comes back without its memory does
//! not empty a view ([`Builder::keep_missing_for`]); with [`Builder::view_dir`] a process that starts meanwhile knows
//! what it knew before. [`Service::freshness`] and [`Client::registry_state`] tell how things stand, and each outage
//! is logged once (`tracing`, at `warn` with the reason and the registry's address as `peer`, and at `info`
//! when it is over).
//!
//! Three things are kept apart: who is a member, which only the registry says; who does well, which only
//! calls say; and how fresh the view is. An outage removes nobody, and an instance that fails is still
//! there.
//!
//! **Testing** what uses this crate needs no registry: [`Service::fixed`] is a service whose instances
//! are given, and with the feature `fake` a registry in memory does what the test says.
//!
//! # Features
//!
//! - `tonic`, the only one that is on by default: [`BalancedChannel`].
//! - `tower`: `PickLayer` picks an instance for each request, whatever a request is, and
//!   `Service::discover` gives tower's balancers a stream of changes.
//! - `http`: `HttpChannel` is a [`BalancedChannel`] for requests of plain HTTP; `HttpLayer` picks an
//!   instance for each request of an HTTP client: hyper-util's, say.
//! - `reqwest`: a [`Service`] is what reqwest resolves its name with, for each connection alone.
//! - `metrics`: figures of each service, told to the recorder of the `metrics` facade that is installed
//!   when the service is first asked for, labelled `namespace` and `service`: counters
//!   `waypost_client_picks_total`, `…_picks_failed_total`, `…_ejections_total`, `…_retries_total`; gauges
//!   `…_calls_in_flight`, `…_view_stale_seconds` (as of the last attempt to reach the registry);
//!   histograms `…_call_seconds` (labelled `outcome`, too) and `…_propagation_seconds` (from a
//!   registration at the registry, by its wall clock, until it is known here).
//! - `tls`: calls to instances over TLS.
//! - `fake`: a registry in memory, for tests of what uses this crate.

// What serves the channels alone is not marked one by one.
#![cfg_attr(not(all(feature = "tonic", feature = "http")), allow(dead_code, unused_imports))]

#[cfg(any(feature = "tower", feature = "http", feature = "reqwest"))]
mod adapters;
mod balance;
mod builder;
#[cfg(any(feature = "tonic", feature = "http"))]
mod channel;
mod client;
pub mod correlation;
mod endpoint;
#[cfg(feature = "fake")]
pub mod fake;
mod metrics;
pub mod proto;
mod registration;
mod registry;
mod runtime;
mod service;
mod transport;
mod view;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../docs/from-balance-channel.md")]
struct FromBalanceChannel;

#[cfg(any(feature = "tower", feature = "http"))]
pub use adapters::CallError;
#[cfg(feature = "tower")]
pub use adapters::{Discover, PickLayer, PickService, Picked};
#[cfg(feature = "http")]
pub use adapters::{HttpLayer, HttpService, TrackedBody};
pub use balance::{CallKey, NoInstance, Pick, PickContext, Policy};
pub use builder::{BuildError, Builder};
#[cfg(feature = "tonic")]
pub use channel::ResponseFuture;
#[cfg(any(feature = "tonic", feature = "http"))]
pub use channel::{BalancedChannel, CallTimeout, Grpc, Http, Protocol, RawTarget, ServedBy};
#[cfg(feature = "http")]
pub use channel::{FailureKind, HttpChannel, HttpChannelError, HttpFuture};
pub use client::Client;
pub use endpoint::{Outcome, Snapshot};
pub use proto::{Filter, Instance};
pub use registration::{
    Counted, CountedBody, CountedFuture, DeregisterError, Drained, FixedStatus, InFlight,
    OngoingCall, RegisterError, Registered, Registration, RegistrationState, Update, UpdateError,
};
pub use registry::{FieldViolation, Refusal, RegistryState};
pub use service::{Changes, ReadyError, Service};
#[cfg(feature = "tls")]
pub use transport::{Tls, TlsError};
pub use view::Freshness;
