//! Keeps nothing: the registry lives as long as the process, and each process begins a history.

use super::{Backup, Store, StoreError, StoredState};
use crate::{
    model::HistoryId,
    registry::{Restored, Transition},
};

/// The store that keeps nothing.
#[derive(Debug, Default)]
pub struct MemoryStore;

impl MemoryStore {
    /// Begins a history.
    pub fn open() -> (Self, StoredState) {
        (Self, StoredState { history: HistoryId::random(), restored: Restored::default() })
    }
}

impl Store for MemoryStore {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn commit(&mut self, _transitions: &[Transition]) -> Result<(), StoreError> {
        Ok(())
    }

    fn backup(&self) -> Result<Backup, StoreError> {
        Err(StoreError::NothingToBackUp(self.name()))
    }
}
