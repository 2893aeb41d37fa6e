//! A load generator for service registries, the code behind `waypost bench`. It measures the
//! latencies of typical workloads and the cost of the server's process, beside the limit: the same
//! workload against a bare tonic server that only responds.
//!
//! Invariants: it uses servers over the wire alone, and shares only the protocol with the registry.
//! No system is favoured: workloads are independent of the system, and everything specific is
//! behind [`protocol`](protocol::SystemProtocol).

#![allow(
    clippy::disallowed_methods,
    reason = "a load generator: it reads the time itself, and its tasks end with the process"
)]

mod arguments;
mod error;
mod figures;
mod limit;
mod load;
mod plan;
mod population;
mod process;
mod progress;
mod protocol;
mod report;
mod run;
mod server;
mod target;
mod workload;

pub use self::{
    arguments::LoadArguments,
    error::{BenchCallError, BenchError},
    report::{Report, Row, Spread},
    run::run,
};
