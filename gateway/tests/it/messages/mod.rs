//! Requests and responses on their way: fields, bodies, codings, CORS, ids, upgrades.

mod bodies;
mod compression;
mod correlation;
mod cors;
mod early;
mod fields;
mod large;
mod upgrade;
