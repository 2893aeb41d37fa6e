//! Support that tests, benchmarks and examples of several packages share. For development only.
//!
//! Never a dependency of a program or of a published crate.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "tests fail by panicking, read the clock and run tasks as users would"
)]

pub mod authority;
pub mod calls;
pub mod conformance;
pub mod figures;
pub mod greeter;
pub mod http2;
pub mod lateness;
pub mod process;
pub mod registry;
pub mod scanner;
pub mod seed;
pub mod tcp;
pub mod wait;
pub mod watch;
