//! A simulated world for the real server and the real client: simulated hosts, network and time in
//! one thread, replayable from a seed, with an oracle that knows what has to be seen.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    unused_imports,
    reason = "a simulation fails by panicking, and runs tasks as its hosts would; \
              each program that has it uses its part"
)]

mod faults;
mod journal;
mod machine;
mod network;
mod oracle;
mod probe;
mod reader;
mod replica;
mod socket;
pub(crate) mod story;
mod time;
mod wire;
mod world;

pub(crate) use self::{
    journal::Identity,
    network::{Link, REGISTRY},
    reader::{Manner, Subject},
    replica::{Content, Terms},
    time::{Millis, here},
    world::{Plan, World},
};
