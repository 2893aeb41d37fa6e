//! Software on the simulated hosts: replicas of services, raw watchers, and conversations with the
//! registry over `stubs`: probes, those whose rights end (`leased`), and hostile ones (`intruder`).

pub(crate) mod intruder;
mod leased;
pub(crate) mod probe;
pub(crate) mod reader;
pub(crate) mod replica;
mod stubs;
