//! Linux: the kernel kills the command with its parent.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Read, Write},
    net::Shutdown,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            net::{SocketAddr, UnixListener as StdListener, UnixStream},
            process::CommandExt,
        },
    },
    process::{Command, ExitCode},
};

use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
use tokio::{io::AsyncReadExt, net::UnixListener};
use uuid::Uuid;

use super::{LaunchArguments, Launcher};
use crate::cli::output::fail;

/// The path of this program, even if its file was replaced or removed since the start.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Longer than any error number in decimal.
const REPORT_BYTES_MAX: u64 = 32;

impl Launcher {
    /// Must be called in a tokio runtime.
    pub(crate) fn new(program: &OsStr, arguments: &[OsString]) -> io::Result<Self> {
        let socket = format!("waypost-{}", Uuid::new_v4());
        let reports = StdListener::bind_addr(&SocketAddr::from_abstract_name(&socket)?)?;
        reports.set_nonblocking(true)?;
        let mut command = Command::new(THIS_PROGRAM);
        command.arg("launch").arg(getpid().as_raw_pid().to_string()).arg(socket);
        command.arg("--").arg(program).args(arguments).process_group(0);
        Ok(Self { command, reports: UnixListener::from_std(reports)? })
    }

    /// Waits until the command, started as process `id`, runs. Cancel safe.
    ///
    /// Returns the error of a command that can't be executed.
    pub(crate) async fn started(&self, id: Pid) -> io::Result<()> {
        loop {
            let (stream, _) = self.reports.accept().await?;
            // Any process on the machine can connect.
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

/// Execs the command. Returns only on failure.
pub(crate) fn run(arguments: LaunchArguments) -> ExitCode {
    match launch(arguments) {
        Ok(()) => ExitCode::FAILURE,
        Err(error) => fail(&format_args!("only `waypost register` can run this command: {error}")),
    }
}

/// Execs the command. Returns once the parent has read why that failed.
fn launch(arguments: LaunchArguments) -> io::Result<()> {
    let LaunchArguments { parent, socket, command } = arguments;
    // Closes on exec.
    let mut report = UnixStream::connect_addr(&SocketAddr::from_abstract_name(socket)?)?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // A parent that ended before the request sends no signal.
    if getppid().map(Pid::as_raw_pid) != Some(parent) {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let error = Command::new(program).args(arguments).exec();
    let number = error.raw_os_error().unwrap_or(rustix::io::Errno::INVAL.raw_os_error());
    report.write_all(number.to_string().as_bytes())?;
    report.shutdown(Shutdown::Write)?;
    // Waits until the parent has read it: the parent takes the end of this process for the
    // command's.
    report.read(&mut [0]).map(drop)
}
