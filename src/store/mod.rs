//! Storage backends behind one trait: `disk` is durable, `memory` is lost on restart; `backup` is
//! the format that a disk store writes and restores.

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
    registry::{RestoredState, Transition},
};

/// A durable log of transitions. Opening a store also returns its [`StoredState`]. Only the engine
/// uses it, one call at a time, on a thread of its own: a store may block.
pub trait Store: Send + 'static {
    /// Returns the name that operators configure.
    fn name(&self) -> &'static str;

    /// Makes transitions durable, all or none. After `Ok` they survive what the store promises to
    /// survive; after an error none of them appears later. Without transitions it only proves that
    /// the store works.
    fn commit(
        &mut self,
        transitions: &[Transition],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Starts a backup of everything committed so far. Commits may continue while it is read.
    fn backup(&self) -> Result<Backup, StoreError>;
}

/// The state that a store returns when it is opened.
#[derive(Debug)]
pub struct StoredState {
    /// The history of its revisions.
    pub history: HistoryId,
    /// The registered instances and the latest changes.
    pub restored: RestoredState,
}

/// The error of a store.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// The store can't be reached or fails; it may recover.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The disk is full; the store recovers once there is free space.
    #[error("the store is full: {0}")]
    Full(String),
    /// The backend stores nothing.
    #[error("the {0} store keeps nothing to back up")]
    NothingToBackUp(&'static str),
    /// The store can't be opened.
    #[error("{}: {reason}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The cause, and what to do about it.
        reason: String,
    },
}

#[cfg(test)]
mod tests;
