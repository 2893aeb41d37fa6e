//! Shared by the suites: registries and replicas that can be killed and started, certificates, a
//! door with TLS and tokens, and log lines.

mod authority;
mod door;
mod instances;
mod logs;
mod registry;

pub use self::{
    authority::{Authority, Vouched, acceptor},
    door::Door,
    instances::{gone, instance},
    logs::Logs,
    registry::{Fake, Network, Process},
};
