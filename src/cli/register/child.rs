//! The command that runs while its instance is registered. It has a process group of its own, so
//! that a key typed in the terminal reaches it only when it is passed on.
//!
//! Invariant: the process id is signalled only until the end of the command was collected, so never
//! another process that got the same id later.

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

/// A command that was started.
#[derive(Debug)]
pub(crate) struct Child {
    /// Also the id of its process group.
    id: Pid,
    /// `None` until the end was collected.
    exit_status: Option<ExitStatus>,
    child_signals: unix::Signal,
}

/// What happens next to a command that runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ChildEvent {
    Exited(ExitStatus),
    /// A signal came that asks to stop.
    StopRequested(Signal),
}

impl Child {
    /// Runs `program` with this program's own input, output and environment. Returns when it runs. It
    /// is killed when the thread ends that called this, as all do when the process is killed.
    pub(crate) async fn spawn(
        program: &OsString,
        arguments: &[OsString],
    ) -> Result<Self, CommandError> {
        let failure =
            |source| CommandError::Spawn { program: escape(&program.to_string_lossy()), source };
        // From before the start, so that no end is missed.
        let child_signals = unix::signal(SignalKind::child()).map_err(CommandError::Signals)?;
        let mut launch = launch::Launcher::new(program, arguments).map_err(failure)?;
        let spawned = launch.command().stdin(Stdio::inherit()).spawn().map_err(failure)?;
        let id = i32::try_from(spawned.id()).ok().and_then(Pid::from_raw);
        let id = id.ok_or_else(|| failure(io::ErrorKind::InvalidData.into()))?;
        let mut child = Self { id, exit_status: None, child_signals };
        tokio::select! {
            biased;
            running = launch.started(id) => running.map_err(failure)?,
            // Killed before it ran: the next wait returns that.
            ended = child.wait() => drop(ended?),
        }
        Ok(child)
    }

    /// How it ended, once it has. Collects all other processes that have ended as children of this
    /// one: the first process of a container becomes the parent of every orphan. Cancel safe.
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

    /// Waits for the end or for a signal that asks to stop, and passes all other signals on. Cancel
    /// safe.
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

    /// Sends a signal to the command and to all that it has started in its process group.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.exit_status.is_none() {
            // Fails where it has just ended: then it needs no signal.
            let _ = kill_process_group(self.id, signal);
        }
    }

    fn forward(&self, signal: Signal) {
        self.signal(signal);
        if signal == Signal::TSTP {
            // As the shell that sent it expects. Goes on at SIGCONT, which is passed on as well.
            let _ = kill_process(getpid(), Signal::STOP);
        }
    }

    /// Sends a signal and waits for the end, however long that takes; a further signal that asks to
    /// stop kills.
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

/// Whether a command that was sent `signal` ended as it was asked to: by its own will, or by the
/// signal, which shells report as a code.
pub(crate) fn exited_as_requested(status: ExitStatus, signal: Option<Signal>) -> bool {
    let number = signal.map(Signal::as_raw);
    let of_signal = number.is_some_and(|number| {
        status.signal() == Some(number) || status.code() == Some(SIGNALLED + number)
    });
    status.success() || of_signal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    #[test]
    fn only_the_signal_that_was_sent_is_a_good_end() {
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
