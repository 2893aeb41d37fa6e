//! Picks an instance for each call. A handle's `selection` gives the candidates (by filter, subset, `zones`);
//! a call brings its `context`. The `balancer` ties a policy to randomness. It `search`es for an eligible
//! candidate (`choice`: filter, health, slow start); which of two is better says the `policy`, one of
//! `policies`. The result is a `pick`.
//!
//! Never picks an instance that takes no traffic, and finds one wherever one matches.

mod balancer;
mod choice;
mod context;
mod no_instance;
mod pick;
mod policies;
mod policy;
mod random;
mod search;
mod selection;
mod zones;

#[cfg(test)]
mod tests;

pub(crate) use self::{
    balancer::Balancer,
    selection::{Candidates, Selection, Subset},
};
pub use self::{
    context::{CallKey, PickContext},
    no_instance::NoInstance,
    pick::Pick,
    policies::Policy,
};
