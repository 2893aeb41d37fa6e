//! Programs as processes.
//!
//! Paths of executables are arguments: only the tests of the package that has them know the paths.

mod registry;
pub mod usage;

use std::{
    env,
    path::Path,
    process::{Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

pub use self::registry::{RegistryProcess, Serve, read_port_file};
use crate::wait::soon;

/// Returns a command that runs in `directory` without input and without settings of Waypost from
/// the environment. Its process is killed on drop.
pub fn command(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("WAYPOST") {
            command.env_remove(name);
        }
    }
    command.current_dir(directory).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs a command to its end.
///
/// # Panics
/// If the command does not start, or does not end soon.
pub async fn output(mut command: Command) -> Output {
    soon("the end of a command", command.output()).await.expect("the command starts")
}

/// Sends a signal to a process.
///
/// # Panics
/// If there is no such process.
pub fn signal(id: u32, signal: Signal) {
    let id = i32::try_from(id).ok().and_then(Pid::from_raw).expect("an id of a process");
    kill_process(id, signal).expect("the process takes the signal");
}
