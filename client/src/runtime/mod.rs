//! Clock, tasks, backoff and hashes. Imports nothing else of the crate.

pub(crate) mod backoff;
pub(crate) mod clock;
pub(crate) mod hash;
pub(crate) mod tasks;
