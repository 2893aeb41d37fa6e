//! A load generator for service registries, the code behind `waypost bench`: workloads as registries
//! see them, with the latencies that callers have, what the server's process spends, and beside them
//! the limit: the same workload against a bare tonic server that only answers.
//!
//! It speaks to servers over the wire alone and shares nothing with the registry but the protocol. It
//! must never be kinder to one system than to another: a workload knows no system, and all that differs
//! is behind [`protocol`](protocol::SystemProtocol).

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
