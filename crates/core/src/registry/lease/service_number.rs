//! Numbers of services, by which the lease table names the service of a lease.
//!
//! Pure.

/// The number of a service in one process. A service that had no instances for long enough to be
/// forgotten gets another one; no number is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ServiceNumber(pub(in crate::registry) u64);

impl ServiceNumber {
    /// Returns the number after this one. The first service has the number after the default, which
    /// is no service's.
    pub(in crate::registry) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
