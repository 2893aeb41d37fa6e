//! The binary: `waypost-gateway`.

use std::process::ExitCode;

/// Many threads allocate and free small things for each request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    waypost_gateway::cli::run()
}
