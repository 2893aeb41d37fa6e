//! Picks an instance for each call. The `selection` of a handle gives the candidates (by filter,
//! subset and `zones`), a call brings its `context`. The `balancer` ties a policy to randomness. It
//! `search`es for an eligible candidate (`choice`: filter, health, slow start). The `policy`, one
//! of `policies`, prefers one of two. The result is a `pick`.
//!
//! Never picks an instance that takes no traffic, and finds one if any matches.

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
