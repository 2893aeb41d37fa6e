//! Suites that load the machine: processes under random faults, kills under load, scanners, traffic
//! through a gateway.
//!
//! A binary of its own, since cargo runs one binary at a time: the deadlines of other tests, and of
//! these, are milliseconds on a machine of few cores. Within it, [`support::alone`] and
//! [`support::shared`] order the tests. One of them installs the metrics recorder of the process.
//!
//! Each suite can run longer; its header has the environment variable.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests read the clock and run tasks as their users would"
)]
#![allow(
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests fail by panicking and print their seeds and figures"
)]
#![allow(clippy::large_futures, reason = "a test's future is as large as the test")]

mod chaos;
mod durability;
mod gateway;
mod slow_watchers;
mod soak;
mod strangers;
mod support;
mod tenants;
