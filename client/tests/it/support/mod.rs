//! Shared by the suites: registries and replicas that can be killed and started.

mod instances;
mod registry;

pub use self::{
    instances::{gone, instance},
    registry::{Fake, Network, Process},
};
