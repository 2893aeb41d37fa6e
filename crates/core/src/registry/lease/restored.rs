//! A lease from a store.
//!
//! Pure.

use std::sync::Arc;

use crate::model::{Instance, LeaseId, LeaseTerms};

/// A lease and its instance, as a store has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredLease {
    /// The instance.
    pub instance: Arc<Instance>,
    /// The lease.
    pub lease: LeaseId,
    /// The generation of the identity's first lease.
    pub first_generation: u64,
    /// The terms of the lease.
    pub terms: LeaseTerms,
}
