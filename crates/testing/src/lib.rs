//! Support that tests, benchmarks and examples of several packages share. For development only.
//!
//! Never a dependency of a program or of a published crate.

pub mod conformance;
pub mod greeter;
