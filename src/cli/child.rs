//! The command that runs while its instance is registered. It has a process group of its own, so
//! that a key typed in the terminal reaches it only when it is passed on.

use std::{
    ffi::OsString,
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process;

use super::{failure::Failure, signals::Signals, text::shown};

#[derive(Debug)]
pub(super) struct Child {
    process: process::Child,
}

impl Child {
    /// Runs `program` with this program's own input, output and environment.
    pub(super) fn spawn(program: &OsString, arguments: &[OsString]) -> Result<Self, Failure> {
        let spawned = process::Command::new(program)
            .args(arguments)
            .stdin(Stdio::inherit())
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let process = spawned.map_err(|source| Failure::Spawn {
            program: shown(&program.to_string_lossy()),
            source,
        })?;
        Ok(Self { process })
    }

    /// How it ended, once it has. Cancel safe.
    pub(super) async fn wait(&mut self) -> Result<ExitStatus, Failure> {
        self.process.wait().await.map_err(Failure::Wait)
    }

    /// Passes a signal on, to whatever the command has started as well.
    pub(super) fn signal(&self, signal: Signal) {
        // There is no id once the end was noticed: nobody else's is ever signalled.
        let id = self.process.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = id.and_then(Pid::from_raw) {
            // Fails where it has just ended: then it needs no signal.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Passes a signal on and waits for the end, however long that takes; any further signal kills.
    pub(super) async fn end(
        &mut self,
        signal: Signal,
        signals: &mut Signals,
    ) -> Result<ExitStatus, Failure> {
        self.signal(signal);
        loop {
            tokio::select! {
                ended = self.wait() => return ended,
                _ = signals.next() => self.signal(Signal::KILL),
            }
        }
    }
}

/// Whether a command that was passed `signal` ended as it was asked to: by its own will, or of the
/// signal, which shells tell as a code.
pub(super) fn ended_well(status: ExitStatus, signal: Option<Signal>) -> bool {
    let number = signal.map(Signal::as_raw);
    let of_signal = number.is_some_and(|number| {
        status.signal() == Some(number) || status.code() == Some(128 + number)
    });
    status.success() || of_signal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_signal_that_was_passed_on_is_a_good_end() {
        let exited = |code: i32| ExitStatus::from_raw(code << 8);
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
