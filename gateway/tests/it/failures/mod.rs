//! Errors of the gateway, deadlines, retries, and an unreachable registry.

mod deadlines;
mod errors;
mod refusals;
mod registry;
mod retries;
