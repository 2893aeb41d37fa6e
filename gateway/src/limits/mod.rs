//! Limits of what clients may send.

pub(crate) mod rate;
