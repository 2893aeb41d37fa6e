//! The stubs that `build.rs` generates from `proto/`.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::wildcard_imports,
    reason = "generated"
)]
tonic::include_proto!("waypost.v1");

/// The descriptors that reflection serves.
pub(crate) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
