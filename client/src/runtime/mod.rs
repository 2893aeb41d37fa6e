//! Time, tasks, backoff and hashes: what all of the crate uses. Imports nothing of it.

pub(crate) mod backoff;
pub(crate) mod clock;
pub(crate) mod hash;
pub(crate) mod tasks;
