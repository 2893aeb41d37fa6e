//! Counts the leases of each namespace that expired or lost their stream, and finds leases that
//! mass-expiry protection held without a reason.

use std::collections::{BTreeMap, VecDeque};

use crate::{journal::Identity, time::Millis};

/// Losses that are never too many, by the contract.
const LOSSES_MIN: usize = 10;
/// The longest window that any lease of a simulation has: its TTL, and what it takes until the
/// recorder sees a loss.
const WINDOW_MAX_MS: Millis = 16_000;

#[derive(Debug, Default)]
pub(crate) struct Losses {
    /// The latest, counted in time in which the registry ran.
    times: BTreeMap<String, VecDeque<Millis>>,
}

impl Losses {
    pub(crate) fn note(&mut self, namespace: &str, run: Millis) {
        let times = self.times.entry(namespace.to_owned()).or_default();
        times.push_back(run);
        if times.len() > LOSSES_MIN {
            times.pop_front();
        }
    }

    /// Judges the hold of a lease whose own loss is counted.
    pub(crate) fn judge_hold(&self, identity: &Identity, run: Millis) -> Result<(), String> {
        let times = self.times.get(&identity.namespace);
        let lost = times.into_iter().flatten().filter(|lost| **lost + WINDOW_MAX_MS > run).count();
        if lost < LOSSES_MIN {
            return Err(format!("{identity} is held as suspect after {lost} losses"));
        }
        Ok(())
    }
}
