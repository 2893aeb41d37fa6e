//! Other systems: nothing kills the command with its parent.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use rustix::process::Pid;

use super::{LaunchArguments, Launcher};
use crate::cli::output::fail;

impl Launcher {
    pub(crate) fn new(program: &OsStr, arguments: &[OsString]) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).process_group(0);
        Ok(Self { command })
    }

    #[expect(clippy::unused_async, reason = "same signature as on Linux")]
    pub(crate) async fn started(&self, _: Pid) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn run(_: LaunchArguments) -> ExitCode {
    fail(&"this command is available on Linux only")
}
