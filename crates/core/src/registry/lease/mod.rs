//! Leases. [`LeaseTable`] is the part that all threads share: renewals. [`Leases`] is the owner's
//! part: grants, deadlines, ends. It takes the leases that are due off the expiry wheel.

mod due;
mod leases;
mod renewal;
mod restored;
mod stalls;
mod table;
mod wheel;

pub use due::Due;
pub(super) use leases::{LeaseState, Leases};
pub use renewal::StreamId;
pub use restored::RestoredLease;
pub use table::LeaseTable;
