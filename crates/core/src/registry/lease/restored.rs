//! A lease that a store returned.
//!
//! Pure.

use std::sync::Arc;

use crate::model::{Instance, LeaseId, LeaseTerms};

/// An identity and its lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredLease {
    /// The instance.
    pub instance: Arc<Instance>,
    /// Its lease.
    pub lease: LeaseId,
    /// The generation that the identity's first lease had.
    pub first_generation: u64,
    /// How long the lease lives.
    pub terms: LeaseTerms,
}
