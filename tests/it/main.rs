//! The server as its users meet it: raw gRPC (and worse) over real sockets, each server on a port of
//! its own. One file a topic.

#![allow(
    clippy::disallowed_methods,
    reason = "tests read the clock and run tasks as their users would"
)]
#![allow(
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests fail tests and say with what they ran"
)]
#![allow(clippy::large_futures, reason = "a test's future is as large as the test")]

mod bad_input;
mod conformance;
mod connections;
mod disconnect;
mod disk;
mod expiry;
mod grpcurl;
mod pages;
mod protection;
mod reflection_health;
mod semantics;
mod shutdown;
mod slow_watchers;
mod soak;
mod standstill;
mod support;
mod watchers;
mod watches;
