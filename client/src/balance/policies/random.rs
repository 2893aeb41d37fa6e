//! A random instance, by weight.

use crate::balance::policy::BalancingPolicy;

#[derive(Debug, Default)]
pub(crate) struct Random;

impl BalancingPolicy for Random {}
