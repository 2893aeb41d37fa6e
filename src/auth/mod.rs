//! The rights of callers: what they did and were refused, in the `audit` log.

pub mod audit;
