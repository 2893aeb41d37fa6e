//! Shared by the suites: registries and replicas that can be killed and started, a door
//! with TLS and tokens, and log lines.

mod door;
mod instances;
mod logs;
mod registry;

pub use self::{
    door::Door,
    instances::{gone, instance},
    logs::Logs,
    registry::{Fake, Network, Process},
};
