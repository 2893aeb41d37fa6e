//! A simulated world for the real server and the real client: hosts, network and time in one
//! thread, replayable from a seed, with an oracle that checks everything seen.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    missing_debug_implementations,
    reason = "a simulation fails by panicking, and runs tasks as its hosts would"
)]

mod access;
mod journal;
mod machine;
mod network;
mod oracle;
pub mod random_run;
mod software;
mod time;
mod world;

pub use self::{
    access::{AccessRules, Subject},
    journal::Identity,
    network::{Link, REGISTRY},
    software::{
        reader::ReadingMode,
        replica::{Content, LeaseTerms, Replica},
    },
    time::{Millis, here},
    world::{Plan, World},
};
