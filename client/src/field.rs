//! Instances to choose from, with the share of calls that each is to get. Never changes once made.

use std::sync::Arc;

use crate::{
    endpoint::Endpoint,
    weights::{Weights, scale_index},
};

/// Instances that take traffic, in order of their ids.
#[derive(Debug, Default)]
pub(crate) struct Field {
    endpoints: Box<[Arc<Endpoint>]>,
    weights: Weights,
    /// The hashes of their ids, side by side: a choice by key looks at each of them.
    hashes: Box<[u64]>,
}

impl Field {
    /// All of `endpoints`, with their own weights.
    pub(crate) fn new(endpoints: impl IntoIterator<Item = Arc<Endpoint>>) -> Self {
        Self::weighted(endpoints.into_iter().map(|endpoint| {
            let weight = endpoint.weight();
            (endpoint, weight)
        }))
    }

    /// Endpoints and their weights, none of them 0.
    pub(crate) fn weighted(endpoints: impl IntoIterator<Item = (Arc<Endpoint>, u32)>) -> Self {
        let (endpoints, weights): (Vec<_>, Vec<_>) = endpoints.into_iter().unzip();
        Self {
            hashes: endpoints.iter().map(|endpoint| endpoint.id_hash()).collect(),
            endpoints: endpoints.into_boxed_slice(),
            weights: Weights::new(weights.into_iter()),
        }
    }

    pub(crate) fn endpoints(&self) -> &[Arc<Endpoint>] {
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

    /// The first that suits from the place `random` / 2^64 on: those behind one that does not must not
    /// get all of its calls.
    pub(crate) fn around(&self, random: u64, suits: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        let from = scale_index(random, self.len());
        (from..self.len()).chain(0..from).find(|index| suits(&self.endpoints[*index]))
    }
}
