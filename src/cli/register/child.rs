//! The command that runs while its instance is registered, in a process group of its own: keys
//! typed in the terminal reach it only if this program forwards their signals.
//!
//! Invariant: no signal is sent after the command's exit was collected; its process id may belong
//! to another process by then.

use std::{
    ffi::OsString,
    io,
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
};

use rustix::{
    io::Errno,
    process::{
        Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group, wait as wait_for_any,
    },
};
use tokio::signal::unix::{self, SignalKind};

use super::launch;
use crate::cli::{
    error::CommandError,
    escape::escape,
    exit::SIGNALLED,
    signals::{SignalListener, is_stop},
};

/// A command that has started.
#[derive(Debug)]
pub(crate) struct Child {
    /// The process id, also of its process group.
    id: Pid,
    /// `None` until the exit is collected.
    exit_status: Option<ExitStatus>,
    child_signals: unix::Signal,
}

/// The next event of a running command.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ChildEvent {
    Exited(ExitStatus),
    /// A stop signal arrived.
    StopRequested(Signal),
}

impl Child {
    /// Runs `program` with this program's own input, output and environment. Returns once it runs.
    /// It is killed when the calling thread ends, as it does when this process is killed.
    pub(crate) async fn spawn(
        program: &OsString,
        arguments: &[OsString],
    ) -> Result<Self, CommandError> {
        let failure =
            |source| CommandError::Spawn { program: escape(&program.to_string_lossy()), source };
        // Before the start, so that no exit is missed.
        let child_signals = unix::signal(SignalKind::child()).map_err(CommandError::Signals)?;
        let mut launch = launch::Launcher::new(program, arguments).map_err(failure)?;
        let spawned = launch.command().stdin(Stdio::inherit()).spawn().map_err(failure)?;
        let id = i32::try_from(spawned.id()).ok().and_then(Pid::from_raw);
        let id = id.ok_or_else(|| failure(io::ErrorKind::InvalidData.into()))?;
        let mut child = Self { id, exit_status: None, child_signals };
        tokio::select! {
            biased;
            running = launch.started(id) => running.map_err(failure)?,
            // Killed before it ran: the next wait returns its status.
            ended = child.wait() => drop(ended?),
        }
        Ok(child)
    }

    /// Waits for the exit status. Also collects all other children that have exited: the first
    /// process of a container becomes the parent of every orphan. Cancel safe.
    pub(crate) async fn wait(&mut self) -> Result<ExitStatus, CommandError> {
        loop {
            self.collect().map_err(CommandError::Wait)?;
            if let Some(status) = self.exit_status {
                return Ok(status);
            }
            self.child_signals.recv().await;
        }
    }

    fn collect(&mut self) -> io::Result<()> {
        while self.exit_status.is_none() {
            match wait_for_any(WaitOptions::NOHANG) {
                Ok(Some((id, status))) if id == self.id => {
                    self.exit_status = Some(ExitStatus::from_raw(status.as_raw()));
                }
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits for the exit or a stop signal, and forwards all other signals. Cancel safe.
    pub(crate) async fn next(
        &mut self,
        signals: &mut SignalListener,
    ) -> Result<ChildEvent, CommandError> {
        loop {
            tokio::select! {
                biased;
                ended = self.wait() => return Ok(ChildEvent::Exited(ended?)),
                signal = signals.next() => match signal {
                    signal if is_stop(signal) => return Ok(ChildEvent::StopRequested(signal)),
                    signal => self.forward(signal),
                },
            }
        }
    }

    /// Sends a signal to the command's process group.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.exit_status.is_none() {
            // Fails if it has just exited and needs no signal.
            let _ = kill_process_group(self.id, signal);
        }
    }

    fn forward(&self, signal: Signal) {
        self.signal(signal);
        if signal == Signal::TSTP {
            // The shell that sent it expects this process to stop too, until SIGCONT.
            let _ = kill_process(getpid(), Signal::STOP);
        }
    }

    /// Sends a signal and waits for the exit without limit. A further stop signal kills the
    /// command.
    pub(crate) async fn stop(
        &mut self,
        signal: Signal,
        signals: &mut SignalListener,
    ) -> Result<ExitStatus, CommandError> {
        self.signal(signal);
        loop {
            match self.next(signals).await? {
                ChildEvent::Exited(status) => return Ok(status),
                ChildEvent::StopRequested(_) => self.signal(Signal::KILL),
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Returns whether a command that was sent `signal` exited as requested: with success, or from the
/// signal, which shells report as an exit code.
pub(crate) fn exited_as_requested(status: ExitStatus, signal: Option<Signal>) -> bool {
    let number = signal.map(Signal::as_raw);
    let from_signal = number.is_some_and(|number| {
        status.signal() == Some(number) || status.code() == Some(SIGNALLED + number)
    });
    status.success() || from_signal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    #[test]
    fn only_success_or_the_sent_signal_counts_as_requested() {
        let killed = ExitStatus::from_raw;
        assert!(exited_as_requested(exited(0), None));
        assert!(!exited_as_requested(exited(3), Some(Signal::TERM)));
        assert!(exited_as_requested(exited(143), Some(Signal::TERM)));
        assert!(!exited_as_requested(exited(143), None));
        assert!(exited_as_requested(killed(15), Some(Signal::TERM)));
        assert!(!exited_as_requested(killed(15), None));
        assert!(!exited_as_requested(killed(9), Some(Signal::TERM)));
    }
}
