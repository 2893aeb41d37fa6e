//! Starts a command so that it can't outlive this program. On Linux, the kernel kills a process with
//! its parent where the process itself has asked for that. So this program starts itself again, as
//! `waypost launch`, which asks for it and then becomes the command. Whether that went well comes
//! back over a socket that closes when the command begins to run.

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

/// Become a command that is killed when the program ends that started this one.
#[derive(Debug, Args)]
pub(crate) struct LaunchArguments {
    /// The process that started this one.
    parent: i32,
    /// The name of the socket on which it listens, in the abstract namespace.
    socket: String,
    /// The command, and its arguments.
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
