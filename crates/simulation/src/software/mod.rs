//! Software on the simulated hosts: replicas of services, raw watchers, and probes of the registry.

pub(crate) mod probe;
pub(crate) mod reader;
pub(crate) mod replica;
