//! The gateway as callers, instances and operators see it, in this process and over loopback, with
//! a registry in memory. Tests wait for conditions, never for time.

#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod access;
mod failures;
mod grpc;
mod hostile;
mod lifecycle;
mod messages;
mod routing;
mod support;
