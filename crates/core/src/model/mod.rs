//! The nouns of the registry, as types that are valid by construction.
//!
//! Pure: no wire format, no clock, no I/O.

mod change;
mod content;
mod filter;
mod host;
mod instance;
mod lease;
mod limits;
mod name;
mod page;
mod revision;
mod tick;

pub use change::{Change, ChangeKind, RemovalReason};
pub use content::{
    Content, ContentView, DEFAULT_WEIGHT, Metadata, Parts, Status, Version, VersionError,
};
pub use filter::{Filter, Visibility};
pub use host::{Host, HostError};
pub use instance::{Instance, InstanceId, InstanceIdError, Presence};
pub use lease::{LeaseId, LeaseTerms};
pub use limits::Limits;
pub use name::{Name, NameError, ServiceKey};
pub use page::{Page, PageTokenError, page_token_after, services_in_page};
pub use revision::{Cursor, HistoryId, Revision};
pub use tick::{Tick, WallTime};
