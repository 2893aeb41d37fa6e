//! The registry as a state machine: instances, their leases, and the changes.
//!
//! [`Registry::plan`] decides on commands without effect. A store commits the resulting
//! [`Transition`]s, and [`Registry::absorb`] applies them. A plan that is not absorbed has no
//! effect. From the bottom: `lease/`, `roster`, `protection`; `state`; `plan` and `absorb` beside
//! each other.
//!
//! Pure: time is an argument, and the effects are return values.

mod absorb;
mod command;
mod encoding;
mod instance_counts;
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
pub use lease::{Due, LeaseSeed, LeaseTable, RestoredLease, ServiceNumber, StreamId};
pub use log::{ChangeLog, LogEntry};
pub use plan::Plan;
pub use protection::{ExpiryShare, ProtectedNamespace};
pub use restored::RestoredState;
pub use roster::{Roster, RosterChunk};
pub use state::{Now, Registry, Service};
pub use transition::Transition;

#[cfg(test)]
mod tests;
