//! Starts a command that can't outlive this program.
//!
//! On Linux, the kernel kills a process with its parent if the process itself has requested that.
//! So this program starts itself as `waypost launch`, which requests it and then execs the command.
//! An error returns over a socket, which closes on exec.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod other;

use std::{ffi::OsString, process::Command};

use clap::Args;
#[cfg(target_os = "linux")]
use tokio::net::UnixListener;

#[cfg(target_os = "linux")]
pub(crate) use self::linux::run;
#[cfg(not(target_os = "linux"))]
pub(crate) use self::other::run;

/// Exec a command that is killed when its parent process ends.
#[derive(Debug, Args)]
pub(crate) struct LaunchArguments {
    /// Process id of the parent.
    parent: i32,
    /// Name of the parent's socket, in the abstract namespace.
    socket: String,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// A command that is about to start.
#[derive(Debug)]
pub(crate) struct Launcher {
    command: Command,
    #[cfg(target_os = "linux")]
    reports: UnixListener,
}

impl Launcher {
    pub(crate) fn command(&mut self) -> &mut Command {
        &mut self.command
    }
}
