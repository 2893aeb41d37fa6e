//! The client as its users meet it: over loopback, or against the registry in memory with paused
//! time. Waits for conditions, never for time. Suites that a whole process belongs to are binaries
//! of their own: `pick` (it counts allocations) and `spans` (a subscriber for all threads).

#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod adapters;
mod calls;
mod client;
mod conformance;
mod credentials;
mod http;
mod metrics;
mod outage;
mod responses;
mod scripted;
mod support;
mod tls;
