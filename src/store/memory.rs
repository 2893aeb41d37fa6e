//! Keeps nothing: the registry lives as long as the process, and each process begins a history.

use super::{Loaded, Store, StoreError};
use crate::{model::HistoryId, registry::Transition};

/// The store that keeps nothing.
#[derive(Debug, Default)]
pub struct MemoryStore;

impl Store for MemoryStore {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn load(&mut self) -> Result<Loaded, StoreError> {
        Ok(Loaded { history: HistoryId::random() })
    }

    async fn commit(&mut self, _transitions: &[Transition]) -> Result<(), StoreError> {
        Ok(())
    }
}
