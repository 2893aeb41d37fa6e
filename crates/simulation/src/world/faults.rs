//! A record of the faults of hosts and links: for counting, and for the report of a violation.

use std::collections::{BTreeMap, VecDeque};

use crate::time::Millis;

/// The number of faults in a violation's report.
const TOLD: usize = 14;

#[derive(Debug, Default, Clone)]
pub(crate) struct Faults {
    pub(crate) counts: BTreeMap<&'static str, u64>,
    recent: VecDeque<String>,
}

impl Faults {
    pub(crate) fn note(&mut self, now: Millis, kind: &'static str, what: &str) {
        *self.counts.entry(kind).or_default() += 1;
        self.recent.push_back(format!("{now} ms: {kind} {what}"));
        if self.recent.len() > TOLD {
            self.recent.pop_front();
        }
    }

    pub(crate) fn recent(&self) -> impl Iterator<Item = &str> {
        self.recent.iter().map(String::as_str)
    }
}
