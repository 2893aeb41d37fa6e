//! Keeps nothing: the registry lives as long as the process, and each process begins a history.

use super::{Image, Loaded, Store, StoreError};
use crate::{
    model::HistoryId,
    registry::{Restored, Transition},
};

/// The store that keeps nothing.
#[derive(Debug, Default)]
pub struct MemoryStore;

impl MemoryStore {
    /// Begins a history.
    pub fn open() -> (Self, Loaded) {
        (Self, Loaded { history: HistoryId::random(), restored: Restored::default() })
    }
}

impl Store for MemoryStore {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn commit(&mut self, _transitions: &[Transition]) -> Result<(), StoreError> {
        Ok(())
    }

    fn image(&self) -> Result<Image, StoreError> {
        Err(StoreError::NoImage(self.name()))
    }
}
