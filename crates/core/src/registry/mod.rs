//! The registry as a pure state machine: who lives, under which lease, and what changed. It has no
//! clock, does no I/O and never waits: time comes in as numbers, and what should happen goes out
//! as values.
//!
//! A change takes one way: [`Registry::plan`] decides what commands do without doing it,
//! somebody makes the resulting [`Transition`]s durable, [`Registry::absorb`] makes them true.
//! What was planned and not absorbed has left no trace.

mod absorb;
mod command;
mod encoding;
mod lease;
mod log;
mod plan;
mod protection;
mod restored;
mod roster;
mod state;
mod transition;

pub use absorb::AbsorbedChange;
pub use command::{Command, Outcome, Patch, Refusal, Target};
pub use encoding::SharedEncoding;
pub use lease::{Due, LeaseTable, RestoredLease, StreamId};
pub use log::{ChangeLog, LogEntry};
pub use plan::Plan;
pub use protection::{ExpiryShare, ProtectedNamespace};
pub use restored::RestoredState;
pub use roster::{Roster, RosterChunk};
pub use state::{Now, Registry, Service};
pub use transition::Transition;

#[cfg(test)]
mod tests;
