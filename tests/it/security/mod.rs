//! The promises of the access model: the rights of each caller, the time until a change is in
//! force, what is recorded, and that no broken file changes anything.

mod audit;
mod bounds;
mod leases;
mod matrix;
mod modes;
mod quota;
mod sight;
mod silence;
mod support;
mod tokens;
mod whole;
