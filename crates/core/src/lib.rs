//! The core of the Waypost registry: instances, their leases, and the log of changes.
//!
//! [`model`] has the nouns, as types that are valid by construction. [`registry`] is the state
//! machine over them.
//!
//! Pure: no clock, no I/O, no runtime. Time and randomness are arguments, decisions are return
//! values.

pub mod failpoint;
pub mod model;
pub mod registry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
