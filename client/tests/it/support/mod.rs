//! Shared by the suites: registries and replicas that can be killed and started.

mod registry;

pub use self::registry::{Fake, Network, Process};
