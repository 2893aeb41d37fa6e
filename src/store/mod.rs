//! What keeps the registry: one small trait, and what stands behind it.

mod backup;
mod disk;
mod memory;
mod record;

use std::{future::Future, path::PathBuf};

pub use backup::{Backup, BackupError, BackupSummary};
pub use disk::{DiskStore, StoreSummary};
pub use memory::MemoryStore;
use thiserror::Error;

use crate::{
    model::HistoryId,
    registry::{Restored, Transition},
};

/// Keeps what was answered. Opening one gives as well what it [kept](StoredState). Used by the engine
/// alone, one call at a time, on a thread of its own: a store may block.
pub trait Store: Send + 'static {
    /// What operators call it.
    fn name(&self) -> &'static str;

    /// Makes transitions durable, all or none. When it returns `Ok` they survive whatever the store
    /// promises to survive; after an error none of them shows up later. Without transitions it only
    /// proves that the store works.
    fn commit(
        &mut self,
        transitions: &[Transition],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// An image of what was committed until now, to be read while the store works on.
    fn backup(&self) -> Result<Backup, StoreError>;
}

/// What a store kept.
#[derive(Debug)]
pub struct StoredState {
    /// The history that it belongs to.
    pub history: HistoryId,
    /// What was registered.
    pub restored: Restored,
}

/// Why a store can't do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// It can't be reached, or fails; it may recover.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// There is no room for more; it recovers when there is.
    #[error("the store is full: {0}")]
    Full(String),
    /// It keeps nothing of which there could be an image.
    #[error("the {0} store keeps nothing to back up")]
    NothingToBackUp(&'static str),
    /// It can't be opened.
    #[error("{}: {reason}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why not, and what to do.
        reason: String,
    },
}

#[cfg(test)]
mod tests;
