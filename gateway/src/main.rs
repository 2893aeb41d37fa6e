//! The binary `waypost-gateway`.

use std::process::ExitCode;

/// Fast for many threads that allocate and free small objects for each request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    waypost_gateway::cli::run()
}
