//! Start and shutdown of the server, exit codes, and the standard services that it has: health and
//! reflection.

mod exit_codes;
mod grpcurl;
mod reflection_health;
mod shutdown;
