//! A service as its callers see it: the `handle` gives its view, the `changes` of that, and picks.
//! The handles of a client share what is `watched`.

mod changes;
mod handle;
mod watched;

pub(crate) use self::watched::WatchedServices;
pub use self::{
    changes::Changes,
    handle::{ReadyError, Service},
};
