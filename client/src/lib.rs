//! Client of the Waypost service-discovery registry.
//!
//! - [`Client::register`] puts an instance into the registry and keeps it there for as long as the
//!   returned guard is held. [`Client::start`] does so without waiting for the registry, whatever stands
//!   in the way; [`Registration::ready_when`] lets its status follow the process's own health, and
//!   [`Registered::drain`] leaves without failing a call.
//! - [`Client::service`] follows a service; [`Service::pick`] chooses an instance for a call: the one
//!   that is likely to [answer sooner](Policy::PeakEwma), or by another [`Policy`]. Instances that fail
//!   are left alone for a while.
//! - [`Client::channel`] is a channel for generated tonic clients that balances over the instances; with
//!   the feature `tls` over TLS (`Builder::tls`).
//!
//! The registry may go away at any time, for as long as it likes: what is known stays known, calls
//! go on, and everything finds its way back by itself. Connect timeouts, keep-alive and jittered
//! backoff are on by default. Each outage is logged once (`tracing`, at `warn` with the reason and the
//! registry's address as `peer`, and at `info` when it is over).
//!
//! ```
//! use waypost_client::{Client, PickContext};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), waypost_client::BuildError> {
//! let client = Client::new("http://127.0.0.1:7510")?;
//! let orders = client.service("orders");
//! if let Ok(pick) = orders.pick(&PickContext::new()) {
//!     println!("calling {}", pick.address());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! - `tonic`, the only one that is on by default: [`BalancedChannel`].
//! - `tower`: `PickLayer` picks an instance for each request, whatever a request is, and
//!   `Service::discover` gives tower's balancers a stream of changes.
//! - `http`: `HttpLayer` does so for HTTP clients: hyper-util's, say, in axum servers as well.
//! - `reqwest`: a [`Service`] is what reqwest resolves its name with, for each connection alone.
//! - `metrics`: figures of each service, told to the recorder of the `metrics` facade that is installed
//!   when the service is first asked for, labelled `namespace` and `service`: counters
//!   `waypost_client_picks_total`, `…_picks_failed_total`, `…_ejections_total`, `…_retries_total`; gauges
//!   `…_calls_in_flight`, `…_view_stale_seconds` (as of the last attempt to reach the registry);
//!   histograms `…_call_seconds` (labelled `outcome`, too) and `…_propagation_seconds` (from a
//!   registration at the registry, by its wall clock, until it is known here).
//! - `tls`: calls to instances over TLS.
//! - `fake`: a registry in memory, for tests of what uses this crate.

// What serves the channel alone is not marked one by one.
#![cfg_attr(not(feature = "tonic"), allow(dead_code))]

#[cfg(any(feature = "tower", feature = "http", feature = "reqwest"))]
mod adapters;
mod amendment;
mod backoff;
mod balance;
mod cache;
#[cfg(feature = "tonic")]
mod channel;
mod client;
mod clock;
mod connection;
mod connector;
pub mod correlation;
mod drain;
mod endpoint;
mod enrolment;
#[cfg(feature = "fake")]
pub mod fake;
mod field;
mod freshness;
mod group;
mod homing;
mod in_flight;
mod keeper;
mod latency;
mod lease;
mod lens;
mod link;
mod link_state;
mod meters;
mod mix;
mod outage;
mod outlier;
pub mod proto;
mod published;
mod pulse;
mod readiness;
mod refusal;
mod register;
mod registration;
mod service;
mod slot;
mod snapshot;
mod standing;
mod tasks;
mod timeline;
#[cfg(feature = "tls")]
mod tls;
mod view_dir;
mod view_file;
mod watch;
mod weights;

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
pub use balance::{CallKey, NoInstance, Outcome, Pick, PickContext, Policy};
#[cfg(feature = "tonic")]
pub use channel::{BalancedChannel, ResponseFuture};
pub use client::{BuildError, Builder, Client};
pub use drain::Drained;
pub use freshness::Freshness;
pub use in_flight::{Counted, CountedBody, CountedFuture, InFlight, OngoingCall};
pub use link_state::LinkState;
pub use proto::{Filter, Instance};
pub use readiness::AsSet;
pub use refusal::{FieldViolation, Refusal};
pub use register::Registered;
pub use registration::{Registration, Update};
pub use service::{Changes, ReadyError, Service};
pub use snapshot::Snapshot;
pub use standing::{CloseError, RegisterError, RegistrationState, UpdateError};
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsError};
