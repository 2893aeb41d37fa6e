//! The messages and client stubs of `waypost.v1`, as generated from `proto/`; with the feature `fake`
//! the server stubs of what programs call as well. Never edited by hand, and never more than that:
//! what they mean to this crate is said elsewhere.
#![allow(missing_docs, unreachable_pub, unused_qualifications, rust_2018_idioms)]
#![allow(clippy::all, clippy::pedantic)]
#![allow(clippy::wildcard_imports, clippy::semicolon_if_nothing_returned)]

include!("generated/waypost.v1.rs");
#[cfg(feature = "fake")]
include!("generated/waypost.v1.servers.rs");
