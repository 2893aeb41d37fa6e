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
    escape::shown,
    exit::SIGNALLED,
    failure::Failure,
    signals::{Signals, is_stop},
};

/// A command that was started.
#[derive(Debug)]
pub(crate) struct Child {
    /// Also the id of its process group.
    id: Pid,
    /// `None` until the end was collected.
    ended: Option<ExitStatus>,
    ends: unix::Signal,
}

/// What happens next to a command that runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Ended(ExitStatus),
    /// A signal came that asks to stop.
    Asked(Signal),
}

impl Child {
    /// Runs `program` with this program's own input, output and environment. Returns when it runs. It
    /// is killed when the thread ends that called this, as all do when the process is killed.
    pub(crate) async fn spawn(program: &OsString, arguments: &[OsString]) -> Result<Self, Failure> {
        let failure =
            |source| Failure::Spawn { program: shown(&program.to_string_lossy()), source };
        // From before the start, so that no end is missed.
        let ends = unix::signal(SignalKind::child()).map_err(Failure::Signals)?;
        let mut launch = launch::Launch::new(program, arguments).map_err(failure)?;
        let spawned = launch.command().stdin(Stdio::inherit()).spawn().map_err(failure)?;
        let id = i32::try_from(spawned.id()).ok().and_then(Pid::from_raw);
        let id = id.ok_or_else(|| failure(io::ErrorKind::InvalidData.into()))?;
        let mut child = Self { id, ended: None, ends };
        tokio::select! {
            biased;
            running = launch.running(id) => running.map_err(failure)?,
            // Killed before it ran: the next wait returns that.
            ended = child.wait() => drop(ended?),
        }
        Ok(child)
    }

    /// How it ended, once it has. Collects all other processes that have ended as children of this
    /// one: the first process of a container becomes the parent of every orphan. Cancel safe.
    pub(crate) async fn wait(&mut self) -> Result<ExitStatus, Failure> {
        loop {
            self.collect().map_err(Failure::Wait)?;
            if let Some(status) = self.ended {
                return Ok(status);
            }
            self.ends.recv().await;
        }
    }

    fn collect(&mut self) -> io::Result<()> {
        while self.ended.is_none() {
            match wait_for_any(WaitOptions::NOHANG) {
                Ok(Some((id, status))) if id == self.id => {
                    self.ended = Some(ExitStatus::from_raw(status.as_raw()));
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
    pub(crate) async fn next(&mut self, signals: &mut Signals) -> Result<Event, Failure> {
        loop {
            tokio::select! {
                biased;
                ended = self.wait() => return Ok(Event::Ended(ended?)),
                signal = signals.next() => match signal {
                    signal if is_stop(signal) => return Ok(Event::Asked(signal)),
                    signal => self.pass_on(signal),
                },
            }
        }
    }

    /// Sends a signal to the command and to all that it has started in its process group.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            // Fails where it has just ended: then it needs no signal.
            let _ = kill_process_group(self.id, signal);
        }
    }

    fn pass_on(&self, signal: Signal) {
        self.signal(signal);
        if signal == Signal::TSTP {
            // As the shell that sent it expects. Goes on at SIGCONT, which is passed on as well.
            let _ = kill_process(getpid(), Signal::STOP);
        }
    }

    /// Sends a signal and waits for the end, however long that takes; a further signal that asks to
    /// stop kills.
    pub(crate) async fn end(
        &mut self,
        signal: Signal,
        signals: &mut Signals,
    ) -> Result<ExitStatus, Failure> {
        self.signal(signal);
        loop {
            match self.next(signals).await? {
                Event::Ended(status) => return Ok(status),
                Event::Asked(_) => self.signal(Signal::KILL),
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
pub(crate) fn ended_well(status: ExitStatus, signal: Option<Signal>) -> bool {
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
        assert!(ended_well(exited(0), None));
        assert!(!ended_well(exited(3), Some(Signal::TERM)));
        assert!(ended_well(exited(143), Some(Signal::TERM)));
        assert!(!ended_well(exited(143), None));
        assert!(ended_well(killed(15), Some(Signal::TERM)));
        assert!(!ended_well(killed(15), None));
        assert!(!ended_well(killed(9), Some(Signal::TERM)));
    }
}
