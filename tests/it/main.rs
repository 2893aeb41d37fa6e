//! The server, the command line and the client crate from outside, over real sockets. Each test has
//! a server on a port of its own; a folder for each promise.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests read the clock and run tasks as their users would"
)]
#![allow(
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests fail by panicking and print their seeds"
)]
#![allow(clippy::large_futures, reason = "a test's future is as large as the test")]

mod cli;
mod client;
mod conformance;
mod disk;
mod expiry;
mod golden;
mod hostile;
mod lifecycle;
mod security;
mod semantics;
mod support;
mod watches;
