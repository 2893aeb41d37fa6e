//! What one kind of handle sees of a service: the selected part of the latest view. Handles that
//! are made from one share it; it must never be behind the view.

use arc_swap::ArcSwapOption;

use crate::{
    balance::{Candidates, Selection},
    endpoint::Snapshot,
};

/// A selection, and what it comes to in the latest view.
#[derive(Debug, Default)]
pub(crate) struct SelectedView {
    selection: Selection,
    candidates: ArcSwapOption<Candidates>,
}

impl SelectedView {
    pub(crate) fn new(selection: Selection) -> Self {
        Self { selection, candidates: ArcSwapOption::empty() }
    }

    pub(crate) fn selection(&self) -> &Selection {
        &self.selection
    }

    /// None before the first view.
    pub(crate) fn candidates(&self) -> &ArcSwapOption<Candidates> {
        &self.candidates
    }

    pub(crate) fn select(&self, snapshot: &Snapshot) -> Candidates {
        self.selection.select(snapshot)
    }
}
