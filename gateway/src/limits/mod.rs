//! Limits of what clients may send.

pub mod rate;
