//! The storage backend that stores nothing: the registry lasts as long as the process, and each
//! process starts a new history.

use super::{Backup, Store, StoreError, StoredState};
use crate::{
    model::HistoryId,
    registry::{RestoredState, Transition},
};

/// The store that stores nothing.
#[derive(Debug, Default)]
pub struct MemoryStore;

impl MemoryStore {
    /// Starts a new history.
    pub fn open() -> (Self, StoredState) {
        (Self, StoredState { history: HistoryId::random(), restored: RestoredState::default() })
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
