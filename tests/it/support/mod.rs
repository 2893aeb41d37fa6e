//! Servers for tests: in this process, or as a process.

mod server;

use std::path::Path;

use tokio::process::Command;
use waypost_testing::process::{self, Serve};

pub(crate) use server::TestServer;

/// Path of the server's executable.
const WAYPOST: &str = env!("CARGO_BIN_EXE_waypost");

/// Returns a command that runs the program in a directory.
pub(crate) fn waypost(directory: &Path) -> Command {
    process::command(Path::new(WAYPOST), directory)
}

/// Returns the arguments of a registry's process.
pub(crate) fn serve() -> Serve {
    Serve::new(WAYPOST)
}
