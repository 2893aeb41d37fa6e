//! Starts a command so that it can't outlive this program. On Linux, the kernel kills a process with
//! its parent where the process itself has asked for that. So this program starts itself again, as
//! `waypost launch`, which asks for it and then becomes the command. Whether that went well comes
//! back over a socket that closes when the command begins to run.

use std::{
    ffi::OsString,
    io,
    process::{Command, ExitCode},
};

use clap::Args;

/// Become a command that is killed when the program ends that started this one.
#[derive(Debug, Args)]
pub(super) struct LaunchArguments {
    /// The process that started this one.
    parent: i32,
    /// The name of the socket on which it listens, in the abstract namespace.
    socket: String,
    /// The command, and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

#[cfg(target_os = "linux")]
pub(super) use linux::{Launch, run};
#[cfg(not(target_os = "linux"))]
pub(super) use other::{Launch, run};

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        ffi::OsStr,
        io::{Read, Write},
        net::Shutdown,
        os::{
            linux::net::SocketAddrExt,
            unix::{
                net::{SocketAddr, UnixListener as StdListener, UnixStream},
                process::CommandExt,
            },
        },
    };

    use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
    use tokio::{io::AsyncReadExt, net::UnixListener};
    use uuid::Uuid;

    use super::{Command, ExitCode, LaunchArguments, OsString, io};
    use crate::cli::fail;

    /// This program, even where its file was replaced or removed since it started.
    const THIS_PROGRAM: &str = "/proc/self/exe";

    /// Longer than any report of an error number.
    const REPORT_BYTES_MAX: u64 = 32;

    /// A command that is about to start.
    #[derive(Debug)]
    pub(in crate::cli) struct Launch {
        command: Command,
        reports: UnixListener,
    }

    impl Launch {
        /// Must be called in a tokio runtime.
        pub(in crate::cli) fn new(program: &OsStr, arguments: &[OsString]) -> io::Result<Self> {
            let socket = format!("waypost-{}", Uuid::new_v4());
            let reports = StdListener::bind_addr(&SocketAddr::from_abstract_name(&socket)?)?;
            reports.set_nonblocking(true)?;
            let mut command = Command::new(THIS_PROGRAM);
            command.arg("launch").arg(getpid().as_raw_pid().to_string()).arg(socket);
            command.arg("--").arg(program).args(arguments).process_group(0);
            Ok(Self { command, reports: UnixListener::from_std(reports)? })
        }

        pub(in crate::cli) fn command(&mut self) -> &mut Command {
            &mut self.command
        }

        /// Waits until the command runs, which was started as process `id`. Cancel safe.
        ///
        /// Errors: why it can't be run.
        pub(in crate::cli) async fn running(&self, id: Pid) -> io::Result<()> {
            loop {
                let (stream, _) = self.reports.accept().await?;
                // Any process of the machine can connect.
                if stream.peer_cred()?.pid() != Some(id.as_raw_pid()) {
                    continue;
                }
                let mut report = String::new();
                stream.take(REPORT_BYTES_MAX).read_to_string(&mut report).await?;
                return match report.parse() {
                    Ok(number) => Err(io::Error::from_raw_os_error(number)),
                    Err(_) => Ok(()),
                };
            }
        }
    }

    /// Becomes the command. Returns only where that failed.
    pub(in crate::cli) fn run(arguments: LaunchArguments) -> ExitCode {
        match launch(arguments) {
            Ok(()) => ExitCode::FAILURE,
            Err(error) => fail(&format_args!("only `waypost register` can start this: {error}")),
        }
    }

    /// Returns where the command can't be run, once that is reported.
    fn launch(arguments: LaunchArguments) -> io::Result<()> {
        let LaunchArguments { parent, socket, command } = arguments;
        // Closed on exec.
        let mut report = UnixStream::connect_addr(&SocketAddr::from_abstract_name(socket)?)?;
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // One that ended before this asked for the signal does not send it.
        if getppid().map(Pid::as_raw_pid) != Some(parent) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let error = Command::new(program).args(arguments).exec();
        let number = error.raw_os_error().unwrap_or(rustix::io::Errno::INVAL.raw_os_error());
        report.write_all(number.to_string().as_bytes())?;
        report.shutdown(Shutdown::Write)?;
        // Not before the parent has read it: it takes the end of this process for the command's.
        report.read(&mut [0]).map(drop)
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use std::{ffi::OsStr, os::unix::process::CommandExt};

    use rustix::process::Pid;

    use super::{Command, ExitCode, LaunchArguments, OsString, io};
    use crate::cli::fail;

    /// A command that is about to start. Nothing kills it with its parent here.
    #[derive(Debug)]
    pub(in crate::cli) struct Launch(Command);

    impl Launch {
        pub(in crate::cli) fn new(program: &OsStr, arguments: &[OsString]) -> io::Result<Self> {
            let mut command = Command::new(program);
            command.args(arguments).process_group(0);
            Ok(Self(command))
        }

        pub(in crate::cli) fn command(&mut self) -> &mut Command {
            &mut self.0
        }

        #[expect(clippy::unused_async, reason = "as where it has something to wait for")]
        pub(in crate::cli) async fn running(&self, _: Pid) -> io::Result<()> {
            Ok(())
        }
    }

    pub(in crate::cli) fn run(_: LaunchArguments) -> ExitCode {
        fail(&"only Linux has this")
    }
}
