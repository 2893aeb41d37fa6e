//! The promises of the access model: the rights of each caller, the time until a change is in
//! force, and that no broken file changes anything.

mod bounds;
mod leases;
mod matrix;
mod modes;
mod sight;
mod support;
mod whole;
