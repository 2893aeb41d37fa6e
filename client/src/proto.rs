//! The messages and client stubs of `waypost.v1`, generated from `proto/`; with the feature `fake`
//! the server stubs, too. Never edited by hand.
#![allow(missing_docs, unreachable_pub, unused_qualifications, rust_2018_idioms)]
#![allow(clippy::all, clippy::pedantic)]
#![allow(clippy::wildcard_imports, clippy::semicolon_if_nothing_returned)]

include!("generated/waypost.v1.rs");
#[cfg(feature = "fake")]
include!("generated/waypost.v1.servers.rs");
