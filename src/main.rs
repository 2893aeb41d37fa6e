//! The `waypost` program: arguments in, exit code out.

use std::process::ExitCode;

/// Measured against the system's: registrations and lookups over gRPC are the better part small
/// allocations that one thread makes and another frees.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    waypost::cli::run()
}
