//! The number of instances of each namespace.
//!
//! Pure. Invariant: namespaces without instances take no memory.

use std::collections::HashMap;

use crate::model::Name;

/// The instances of namespaces.
#[derive(Debug, Default)]
pub(super) struct InstanceCounts(HashMap<Name, usize>);

impl InstanceCounts {
    /// Returns the number of instances of a namespace.
    pub(super) fn of(&self, namespace: &Name) -> usize {
        self.0.get(namespace).copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, namespace: &Name) {
        match self.0.get_mut(namespace) {
            Some(count) => *count += 1,
            None => {
                self.0.insert(namespace.clone(), 1);
            }
        }
    }

    pub(super) fn remove(&mut self, namespace: &Name) {
        if let Some(count) = self.0.get_mut(namespace) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(namespace);
            }
        }
    }
}
