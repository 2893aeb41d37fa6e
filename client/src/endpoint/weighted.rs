//! The instances that picks choose from, with the share of calls of each. Immutable.

use std::sync::Arc;

use super::{
    endpoint::Endpoint,
    weights::{Weights, other_than, scale},
};

/// Instances that take traffic, in order of their ids.
#[derive(Debug, Default)]
pub(crate) struct WeightedEndpoints {
    endpoints: Box<[Arc<Endpoint>]>,
    weights: Weights,
    /// The hashes of the ids, side by side: a pick by key reads all of them.
    hashes: Box<[u64]>,
}

impl WeightedEndpoints {
    /// Creates the list of `endpoints` with their own weights.
    pub(crate) fn new(endpoints: impl IntoIterator<Item = Arc<Endpoint>>) -> Self {
        Self::weighted(endpoints.into_iter().map(|endpoint| {
            let weight = endpoint.weight();
            (endpoint, weight)
        }))
    }

    /// Creates the list of endpoints with these weights, none of them 0.
    pub(crate) fn weighted(endpoints: impl IntoIterator<Item = (Arc<Endpoint>, u32)>) -> Self {
        let (endpoints, weights): (Vec<_>, Vec<_>) = endpoints.into_iter().unzip();
        Self {
            hashes: endpoints.iter().map(|endpoint| endpoint.id_hash()).collect(),
            endpoints: endpoints.into_boxed_slice(),
            weights: Weights::new(weights.into_iter()),
        }
    }

    pub(crate) fn as_slice(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    pub(crate) fn weights(&self) -> &Weights {
        &self.weights
    }

    pub(crate) fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    pub(crate) fn len(&self) -> usize {
        self.endpoints.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Returns the load of an instance with `in_flight` calls: `(in flight + 1/2) / weight`, where
    /// the weight is relative to the mean. The half makes shares of few calls as even as they can
    /// be (as in A. Sainte-Laguë's method for seats); a whole one would favour heavy instances.
    #[inline]
    pub(crate) fn load(&self, index: usize, in_flight: u32) -> f32 {
        (in_flight as f32 + 0.5) * self.weights.inverse(index)
    }

    /// Draws two of a list that is not empty; they differ if there are several. Each is drawn by
    /// weight, at its fraction of 2^64: the first so that an idle service shares its calls exactly
    /// by weight, the second so that a share that was made small on purpose stays small.
    #[inline]
    pub(crate) fn draw(&self, first: u64, second: u64) -> (usize, usize) {
        let (one, other) = (self.weights.at(first), self.weights.at(second));
        if one != other || self.len() < 2 {
            return (one, other);
        }
        (one, other_than(one, self.len(), second.rotate_left(32)))
    }

    /// Draws two that match, each by weight at its fraction of 2^64; none if none matches. Looks at
    /// all.
    pub(crate) fn draw_where(
        &self,
        first: u64,
        second: u64,
        matches: impl Fn(&Endpoint) -> bool,
    ) -> Option<(usize, usize)> {
        let matching = || {
            let all = self.endpoints.iter().enumerate();
            all.filter(|(_, endpoint)| matches(endpoint)).map(|(index, _)| index)
        };
        let total: u64 = matching().map(|index| self.weights.of(index)).sum();
        let at = |fraction| {
            let point = scale(fraction, total);
            let mut end = 0;
            matching().find(|index| {
                end += self.weights.of(*index);
                point < end
            })
        };
        Some((at(first)?, at(second)?))
    }
}
