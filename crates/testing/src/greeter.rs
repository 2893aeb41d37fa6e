//! Stubs of `proto/greeter.proto`, a service to call in tests and examples.
//!
//! Generated; `tests/stubs.rs` of the workspace compares them with the proto.

#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    reason = "generated"
)]

include!("generated/greeter.rs");
