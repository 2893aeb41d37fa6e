//! A lease that the registry has to act on.
//!
//! Pure.

use crate::model::{LeaseId, RemovalReason};

/// What a look at the leases found, and what has to have consequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// A lease ran out; of a held one, the hold did.
    Expired {
        /// The lease.
        lease: LeaseId,
        /// What it ran out of: its TTL, or its grace after a broken stream.
        reason: RemovalReason,
    },
    /// A held lease was renewed.
    Renewed {
        /// The lease.
        lease: LeaseId,
    },
}

impl Due {
    /// Whose due it is.
    pub fn lease(self) -> LeaseId {
        match self {
            Self::Expired { lease, .. } | Self::Renewed { lease } => lease,
        }
    }
}
