//! The instances that the calls of a handle go to, and their shares, before a policy chooses. Pure.
//! Never selects an instance that takes no traffic.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc, time::Duration};

use super::{context::matches, no_instance::NoInstance, zones};
use crate::{
    endpoint::{Endpoint, ServiceStats, Snapshot, Tick, WeightedEndpoints},
    proto::Filter,
    runtime::{clock::Instant, hash::mix},
};

/// The unit of shares of zones.
const SHARE_UNIT: f64 = (1 << 30) as f64;

/// The selection of a handle from the instances of its service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    pub(crate) filter: Filter,
    /// The caller's zone.
    pub(crate) zone: Option<String>,
    pub(crate) subset: Option<Subset>,
    /// The time in which a new instance reaches its full share of calls.
    pub(crate) slow_start: Duration,
}

/// A subset of the instances, stable for each caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subset {
    /// At least 1.
    pub(crate) size: usize,
    /// The hash of the caller.
    pub(crate) caller: u64,
}

/// The instances selected from a snapshot.
#[derive(Debug)]
pub(crate) struct Candidates {
    /// The instances to choose from.
    pub(super) preferred: Arc<WeightedEndpoints>,
    /// The instances to choose from while most of the preferred ones are ejected.
    pub(super) others: Option<Arc<WeightedEndpoints>>,
    /// The number of instances, and of those that take traffic.
    pub(super) instances: usize,
    pub(super) serving: usize,
    pub(super) slow_start_ms: Tick,
    pub(super) stats: Arc<ServiceStats>,
}

impl Candidates {
    /// Returns the reason why there are none.
    pub(super) fn no_instance(&self) -> NoInstance {
        match (self.instances, self.serving) {
            (0, _) => NoInstance::Empty,
            (instances, 0) => NoInstance::NoneServing { instances },
            (_, serving) => NoInstance::AllFiltered { serving },
        }
    }

    /// Returns the number of instances that take traffic, selected or not.
    #[cfg(test)]
    pub(crate) fn serving(&self) -> usize {
        self.serving
    }

    /// Returns whether any instance meets the condition.
    pub(crate) fn any(&self, condition: impl Fn(&Endpoint) -> bool) -> bool {
        let endpoints = self.others.as_ref().unwrap_or(&self.preferred);
        endpoints.as_slice().iter().any(|endpoint| condition(endpoint))
    }

    /// Records the time, which only outcomes of calls report otherwise.
    pub(crate) fn advance(&self, now: Instant) {
        self.stats.advance(now);
    }
}

impl Selection {
    /// Selects from `snapshot`.
    pub(crate) fn select(&self, snapshot: &Snapshot) -> Candidates {
        let serving = snapshot.serving_endpoints();
        let matching = if self.filter == Filter::default() {
            Arc::clone(serving)
        } else {
            let accepts = |endpoint: &&Arc<Endpoint>| matches(&self.filter, endpoint);
            Arc::new(WeightedEndpoints::new(serving.as_slice().iter().filter(accepts).cloned()))
        };
        let preferred = self.preferred(&matching);
        Candidates {
            others: preferred.is_some().then(|| Arc::clone(&matching)),
            preferred: preferred.map_or(matching, Arc::new),
            instances: snapshot.len(),
            serving: serving.len(),
            slow_start_ms: Tick::try_from(self.slow_start.as_millis()).unwrap_or(Tick::MAX),
            stats: Arc::clone(snapshot.stats()),
        }
    }

    /// Returns the instances that calls go to as a rule; none if these are all of `matching` alike.
    fn preferred(&self, matching: &WeightedEndpoints) -> Option<WeightedEndpoints> {
        let near = self.zone.as_deref().and_then(|zone| zone_endpoints(matching, zone));
        let count = near.as_ref().map_or(matching.len(), Vec::len);
        let Some(subset) = self.subset.filter(|subset| subset.size < count) else {
            return near.map(WeightedEndpoints::weighted);
        };
        let all =
            || matching.as_slice().iter().map(|endpoint| (Arc::clone(endpoint), endpoint.weight()));
        let mut chosen = near.unwrap_or_else(|| all().collect());
        subset.keep(&mut chosen);
        Some(WeightedEndpoints::weighted(chosen))
    }
}

impl Subset {
    /// Keeps the endpoints whose hashes with the caller's are highest, so that an instance that is
    /// added or removed changes nothing else (as in rendezvous hashing).
    fn keep(&self, endpoints: &mut Vec<(Arc<Endpoint>, u32)>) {
        let rank = |endpoint: &Arc<Endpoint>| Reverse(mix(self.caller ^ endpoint.id_hash()));
        endpoints.select_nth_unstable_by_key(self.size - 1, |(endpoint, _)| rank(endpoint));
        endpoints.truncate(self.size);
        endpoints.sort_unstable_by(|(a, _), (b, _)| a.instance().id.cmp(&b.instance().id));
    }
}

/// Returns the instances that get calls from `zone`, with their weights; none if the zone has none,
/// and makes no difference.
fn zone_endpoints(endpoints: &WeightedEndpoints, zone: &str) -> Option<Vec<(Arc<Endpoint>, u32)>> {
    let mut capacities = BTreeMap::<&str, u64>::new();
    for endpoint in endpoints.as_slice() {
        *capacities.entry(&endpoint.instance().zone).or_default() += u64::from(endpoint.weight());
    }
    let local = capacities.keys().position(|found| *found == zone)?;
    if capacities.len() == 1 {
        return None;
    }
    let (names, capacities): (Vec<&str>, Vec<u64>) = capacities.into_iter().unzip();
    let shares = zones::shares(&capacities, local);
    let weighted = |endpoint: &Arc<Endpoint>| {
        let place = names.binary_search(&endpoint.instance().zone.as_str()).ok()?;
        let part = f64::from(endpoint.weight()) / capacities[place] as f64;
        // At least 1, and at most 2^30.
        let weight = (shares[place] * part * SHARE_UNIT).max(1.0) as u32;
        (shares[place] > 0.0).then(|| (Arc::clone(endpoint), weight))
    };
    Some(endpoints.as_slice().iter().filter_map(weighted).collect())
}
