//! The nouns of the registry, as types that can't be wrong. No wire format, no clock, no I/O.

mod change;
mod filter;
mod instance;
mod lease;
mod limits;
mod name;
mod revision;
mod tick;

pub use change::{Change, ChangeKind, RemovalReason};
pub use filter::Filter;
pub use instance::{
    Content, DEFAULT_WEIGHT, Host, HostError, Instance, InstanceId, InstanceIdError, Metadata,
    Presence, Status, Version, VersionError,
};
pub use lease::{LeaseId, LeaseTerms};
pub use limits::Limits;
pub use name::{Name, NameError, ServiceKey};
pub use revision::{Cursor, HistoryId, Revision};
pub use tick::{Tick, WallTime};
