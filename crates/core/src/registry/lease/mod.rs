//! Leases. [`LeaseTable`] is shared by all threads, which renew leases through it. [`Leases`]
//! belongs to the registry, which grants and ends leases and finds the due ones with the expiry
//! wheel.

mod due;
mod generations;
mod leases;
mod renewal;
mod restored;
mod service_number;
mod stalls;
mod table;
mod wheel;

pub use due::Due;
pub(super) use generations::Generations;
pub use generations::LeaseSeed;
pub(super) use leases::{LeaseState, Leases};
pub use renewal::StreamId;
pub use restored::RestoredLease;
pub use service_number::ServiceNumber;
pub use table::LeaseTable;
