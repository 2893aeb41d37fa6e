//! A process of this program in another role. It never outlives its starter.

use std::{
    env,
    ffi::OsStr,
    io::{self, Read},
    os::unix::process::CommandExt,
    process::{self, Child, ChildStdout, Command, Stdio},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};

/// The environment variable with the role of a process.
const PART: &str = "DEMO_PART";
/// Settings of the registry and the gateway, which are not the demonstration's.
const SETTINGS: &str = "WAYPOST_";

/// The role of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// `waypost`.
    Registry,
    /// `waypost-gateway`.
    Gateway,
    /// A replica of a service.
    Replica,
}

impl Part {
    const ALL: [Self; 3] = [Self::Registry, Self::Gateway, Self::Replica];

    fn name(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Gateway => "gateway",
            Self::Replica => "replica",
        }
    }

    /// The role of this process; none where a user started it.
    pub(crate) fn of_this_process() -> Option<Self> {
        let name = env::var(PART).ok()?;
        Self::ALL.into_iter().find(|part| part.name() == name)
    }
}

/// Ends this process once its starter has ended, which closes its input.
pub(crate) fn end_with_starter() {
    thread::spawn(|| {
        // The input never has data.
        let _ended = io::stdin().read_to_end(&mut Vec::new());
        process::exit(1);
    });
}

/// A running part. Dropping it is `kill -9`, and waits until it is dead.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    pub(crate) fn start<A: AsRef<OsStr>>(
        part: Part,
        arguments: impl IntoIterator<Item = A>,
    ) -> io::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with(SETTINGS) {
                command.env_remove(name);
            }
        }
        let output = if part == Part::Gateway { Stdio::piped() } else { Stdio::null() };
        let child = command
            .args(arguments)
            .env(PART, part.name())
            .stdin(Stdio::piped())
            .stdout(output)
            // Ctrl-C goes to the starter, which ends the others.
            .process_group(0)
            .spawn()?;
        Ok(Self { child })
    }

    /// The process's standard output, once.
    pub(crate) fn output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Returns whether the process has ended.
    pub(crate) fn has_ended(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::TERM)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only where the process has ended already.
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}
