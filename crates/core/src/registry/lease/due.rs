//! Leases that the registry must act on.
//!
//! Pure.

use crate::model::{LeaseId, RemovalReason};

/// A lease that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// The lease expired; of a held one, the hold ended.
    Expired {
        /// The lease.
        lease: LeaseId,
        /// `Expired` by the TTL, `Disconnected` by the grace after a broken stream.
        reason: RemovalReason,
    },
    /// A held lease was renewed.
    Renewed {
        /// The lease.
        lease: LeaseId,
    },
}

impl Due {
    /// Returns the lease.
    pub fn lease(self) -> LeaseId {
        match self {
            Self::Expired { lease, .. } | Self::Renewed { lease } => lease,
        }
    }
}
