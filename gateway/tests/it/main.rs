//! The gateway as its callers, its instances and its operators see it: in this process, over loopback,
//! with a registry in memory. Waits for conditions, never for time.

#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod bodies;
mod deadlines;
mod errors;
mod proxying;
mod repeats;
mod routes;
mod support;
mod upgrade;
