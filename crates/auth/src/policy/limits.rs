//! The limits of each principal and of each namespace (`[[limit]]`).
//!
//! Pure.

use waypost_core::model::Name;

use super::{
    pattern::{NamePart, PrincipalPattern},
    principal::Principal,
};

/// The limits of one principal. Renewals are never limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrincipalLimits {
    /// Writes in one second, in the long run.
    pub writes_per_second: u32,
    /// Writes at once, after a time with fewer of them.
    pub writes_burst: u32,
    /// Open watches.
    pub watches: u32,
    /// Open connections.
    pub connections: u32,
}

impl Default for PrincipalLimits {
    /// The limits of principals that no `[[limit]]` fits: 1,000 writes/s, a burst of 10,000, 10,000
    /// watches, 10,000 connections.
    fn default() -> Self {
        Self {
            writes_per_second: 1_000,
            writes_burst: 10_000,
            watches: 10_000,
            connections: 10_000,
        }
    }
}

/// The limits of the policy, in the order of the file: the first that fits holds.
#[derive(Debug, Default)]
pub(super) struct PolicyLimits {
    pub(super) of_principals: Vec<(PrincipalPattern, PrincipalLimits)>,
    pub(super) of_namespaces: Vec<(NamePart, usize)>,
}

impl PolicyLimits {
    pub(super) fn of_principal(&self, principal: &Principal) -> PrincipalLimits {
        let mut limits = self.of_principals.iter();
        let fits = limits.find(|(pattern, _)| pattern.captures(principal.as_str()).is_some());
        fits.map_or_else(PrincipalLimits::default, |(_, limits)| *limits)
    }

    pub(super) fn instances_max(&self, namespace: &Name) -> Option<usize> {
        let mut limits = self.of_namespaces.iter();
        limits.find(|(part, _)| part.includes(namespace)).map(|(_, instances)| *instances)
    }
}
