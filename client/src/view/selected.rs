//! The part of the latest view that a handle's filter selects; shared by handles with the same
//! filter. Never older than the view.

use arc_swap::ArcSwapOption;

use crate::{
    balance::{Candidates, Selection},
    endpoint::Snapshot,
};

/// A selection, and its candidates in the latest view.
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
