//! The gateway as its callers, instances and operators see it: in this process, over loopback, with
//! a registry in memory. Waits for conditions, never for time.

#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod auth;
mod availability;
mod bodies;
mod compression;
mod correlation;
mod cors;
mod deadlines;
mod early;
mod errors;
mod exit_codes;
mod greetings;
mod grpc;
mod large;
mod leaving;
mod operators;
mod proxying;
mod rate;
mod refusals;
mod reload;
mod repeats;
mod resting;
mod routes;
mod support;
mod targets;
mod upgrade;
