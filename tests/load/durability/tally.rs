//! The totals of a run, in one line.

use std::fmt;

use crate::durability::ledger::Outcome;

/// Counts over all rounds.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) rounds: u64,
    /// Kills before the registry served.
    pub(crate) starts_in_vain: u64,
    pub(crate) taken: u64,
    /// Writes that had to be refused.
    pub(crate) refused: u64,
    /// Unacknowledged writes that were kept.
    pub(crate) kept: u64,
    pub(crate) not_kept: u64,
    pub(crate) untold: u64,
    pub(crate) resumes: u64,
    /// The registry's last revision.
    pub(crate) revision: u64,
}

impl Tally {
    pub(crate) fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Kept => self.kept += 1,
            Outcome::NotKept => self.not_kept += 1,
            Outcome::NoDifference => self.untold += 1,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, starts_in_vain, taken, refused, .. } = self;
        let Self { kept, not_kept, untold, resumes, revision, .. } = self;
        write!(
            formatter,
            "{rounds} rounds and {starts_in_vain} starts killed, {taken} writes answered and \
             {refused} refused up to revision {revision}; of those in flight {kept} kept, \
             {not_kept} not kept, {untold} without a trace; {resumes} watches resumed"
        )
    }
}
