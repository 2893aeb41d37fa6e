//! Strangers: the connections on which nothing was allowed yet, bounded in number and in time.
//!
//! `table` decides which one is closed; `acquaintance` is what a connection knows of its caller;
//! `closing` ends the connection.
//!
//! Invariant: a known caller is never closed to make room.

mod acquaintance;
mod closing;
mod table;

use std::{net::IpAddr, sync::Arc};

use parking_lot::Mutex;

use self::table::{Origin, Table};
pub(crate) use self::{
    acquaintance::{Acquaintance, Visit},
    closing::{Closing, End},
};

/// The event that makes a caller known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KnownBy {
    /// Its opening bytes: where every caller may do everything.
    Opening,
    /// An identity or an allowed call.
    Gate,
}

/// All strangers of a listener. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Strangers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    known_by: KnownBy,
    table: Mutex<Table<Arc<Acquaintance>>>,
}

/// A new connection. Dropping it ends its place among strangers.
#[derive(Debug)]
pub(crate) struct Stranger(Arc<Acquaintance>);

impl Strangers {
    pub(super) fn new(known_by: KnownBy, max: usize) -> Self {
        Self(Arc::new(Shared { known_by, table: Mutex::new(Table::new(max)) }))
    }

    /// Counts a connection, and closes another one at the limit.
    pub(super) fn arrive(&self, address: Option<IpAddr>) -> Stranger {
        let acquaintance = |id| Arc::new(Acquaintance::new(Arc::clone(&self.0), id));
        let arrival = self.0.table.lock().admit(Origin::of(address), acquaintance);
        if let Some(evicted) = arrival.evicted {
            evicted.evict();
        }
        Stranger(arrival.admitted)
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0.table.lock().len()
    }
}

impl Stranger {
    /// Returns the handle that the caller's requests report to.
    pub(crate) fn acquaintance(&self) -> &Arc<Acquaintance> {
        &self.0
    }

    /// Returns the future that is ready once the connection must end.
    pub(crate) fn closing(&self) -> Closing {
        Closing::new(Arc::clone(&self.0))
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.0.leave();
    }
}
