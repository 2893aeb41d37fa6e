//! What keeps the registry: one small trait, and what stands behind it.

mod memory;

use std::future::Future;

pub use memory::MemoryStore;
use thiserror::Error;

use crate::{model::HistoryId, registry::Transition};

/// Keeps what was answered. Used by the engine alone, one call at a time.
pub trait Store: Send + 'static {
    /// What operators call it.
    fn name(&self) -> &'static str;

    /// Reads what was kept. Called once, before anything else.
    fn load(&mut self) -> impl Future<Output = Result<Loaded, StoreError>> + Send;

    /// Makes transitions durable, all or none. When it returns `Ok` they survive whatever the store
    /// promises to survive; after an error none of them shows up later.
    fn commit(
        &mut self,
        transitions: &[Transition],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// What a store kept.
#[derive(Debug)]
pub struct Loaded {
    /// The history that it belongs to.
    pub history: HistoryId,
}

/// Why a store can't do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// It can't be reached, or fails; it may recover.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
}
