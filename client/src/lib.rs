//! Client of the Waypost service-discovery registry.
//!
//! Instances of services are added and removed; a registry tracks them. This crate registers a
//! process, and keeps a current view of the other ones, so that each call goes to an instance that
//! is likely to respond soon.
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
//! **Registering**: [`Client::register`] registers an instance, and keeps it registered while the
//! returned guard is held. [`Client::register_in_background`] does so without waiting for the
//! registry; [`Registration::ready_when`] lets the status follow the process's own health; and
//! [`Registered::drain`] deregisters without failing a call.
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
//! **Calling**: [`Client::channel`] is a channel for any client that tonic generates. Each call
//! goes to an instance of its own; one that takes no connection or fails is ejected for a while.
//! Each channel enables retries of [idempotent](BalancedChannel::retry_idempotent) calls,
//! [hedging](BalancedChannel::hedge_idempotent) of slow ones, and a limit of [calls in
//! flight](BalancedChannel::concurrency_limit).
//!
//! ```no_run
//! # fn example(client: waypost_client::Client) {
//! // let orders = OrdersClient::new(client.channel("orders"));
//! let reading = client.channel("orders").retry_idempotent(3).concurrency_limit(100);
//! # drop(reading);
//! # }
//! ```
//!
//! **Picking**, for any transport: [`Client::service`] watches a service, and [`Service::pick`]
//! picks an instance in nanoseconds, without a runtime. Keep the [`Pick`] until the call has ended,
//! and [report](Pick::report) the outcome. The [`Policy`] spreads the calls; `Service::with_…`
//! selects their instances: a zone, a version, a subset.
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
//! **While the registry is unreachable**, for any time: the view stays, calls go on, and everything
//! reconnects with jitter. A registry that restarts without its data does not empty a view
//! ([`Builder::keep_missing_for`]); with [`Builder::view_dir`] a process that starts meanwhile has
//! the last view. [`Service::freshness`] and [`Client::registry_state`] report the state, and each
//! outage is logged once (`tracing`, at `warn` with the reason and the registry's address as
//! `peer`, and at `info` at its end).
//!
//! Membership, health and freshness are independent: only the registry changes the members, only
//! calls change the health of an instance. An outage removes no instance, and an ejected instance
//! stays a member.
//!
//! **Security**: a registry with TLS has the scheme `https`, and [`Builder::credentials`] sets what
//! both sides prove: certificates in an [identity folder](Credentials::folder), a
//! [token](TokenFile), or both. They are followed while the client runs, and new ones cost no watch
//! and no lease. A registry that refuses them is [`RegistryState::Denied`]: views stay, and
//! everything is tried again when the credentials change.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use waypost_client::{Client, Credentials};
//!
//! let client = Client::builder()
//!     .registry("https://registry.internal:7510")
//!     .credentials(Credentials::folder("/var/run/waypost/tls")?)
//!     .build()?;
//! # drop(client);
//! # Ok(())
//! # }
//! ```
//!
//! **Testing** a program needs no registry: [`Service::fixed`] is a service with given instances,
//! and the feature `fake` has a registry in memory that a test controls.
//!
//! # Features
//!
//! - `tonic`, a default: [`BalancedChannel`].
//! - `tls`, a default: TLS to the registry, and to instances. Without it, a client reaches only
//!   registries without TLS, and can send them a token on the same machine.
//! - `tower`: `PickLayer` picks an instance for each request of any type, and `Service::discover`
//!   gives tower's balancers a stream of changes.
//! - `http`: `HttpChannel` is a [`BalancedChannel`] for requests of plain HTTP; `HttpLayer` picks
//!   an instance for each request of an HTTP client such as hyper-util's.
//! - `reqwest`: reqwest resolves a service's name with a [`Service`], for each connection.
//! - `metrics`: metrics of each service for the recorder of the `metrics` facade that is installed
//!   when it first has an instance or a pick fails, labelled `namespace` and `service`: counters
//!   `waypost_client_picks_total`, `…_picks_failed_total`, `…_ejections_total`, `…_retries_total`;
//!   gauges `…_calls_in_flight`, `…_view_stale_seconds` (as of the last attempt to reach the
//!   registry); histograms `…_call_seconds` (also labelled `outcome`) and `…_propagation_seconds`
//!   (from a registration, by the registry's wall clock, to the client's view).
//! - `fake`: a registry in memory, for tests.

// Code that only channels use is not marked item by item.
#![cfg_attr(not(all(feature = "tonic", feature = "http")), allow(dead_code, unused_imports))]

#[cfg(any(feature = "tower", feature = "http", feature = "reqwest"))]
mod adapters;
mod balance;
mod builder;
#[cfg(any(feature = "tonic", feature = "http"))]
mod channel;
mod client;
pub mod correlation;
mod credentials;
mod endpoint;
#[cfg(feature = "fake")]
pub mod fake;
mod metrics;
pub mod proto;
mod registration;
mod registry;
mod registry_channel;
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
#[cfg(feature = "tls")]
pub use credentials::FolderError;
pub use credentials::{Credentials, Token, TokenError, TokenFile, TokenSource};
pub use endpoint::{Outcome, Snapshot};
pub use proto::{Filter, Instance};
pub use registration::{
    Counted, CountedBody, CountedFuture, DeregisterError, Drained, FixedStatus, InFlight,
    OngoingCall, RegisterError, Registered, Registration, RegistrationState, Update, UpdateError,
};
pub use registry::{FieldViolation, Refusal, RegistryState};
pub use registry_channel::{RegistryChannel, RegistryChannelError};
pub use service::{Changes, ReadyError, Service};
#[cfg(feature = "tls")]
pub use transport::{Tls, TlsError};
pub use view::Freshness;
