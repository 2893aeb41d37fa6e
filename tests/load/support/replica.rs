//! A replica of a service as a process: this executable again, with one test as its main function.

use std::{
    env,
    process::{Child, Command, Stdio},
};

use rustix::process::Signal;
use waypost_testing::process::signal;

/// The process of a replica. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct ReplicaProcess(Child);

impl ReplicaProcess {
    /// Starts a process that runs the test `main` alone, with a variable in its environment.
    pub(crate) fn start(main: &str, variable: &str, value: &str) -> Self {
        let child = Command::new(env::current_exe().expect("the path of this executable"))
            .args(["--exact", main, "--nocapture"])
            .env(variable, value)
            // Its end shows the replica that this process has ended, in whatever way.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("a process");
        Self(child)
    }

    pub(crate) fn signal(&self, number: Signal) {
        signal(self.0.id(), number);
    }

    /// Sends SIGTERM and waits until the process ends. Blocks.
    pub(crate) fn terminate(mut self) {
        // Waiting would close the input, which ends a replica at once.
        let _input = self.0.stdin.take();
        self.signal(Signal::TERM);
        self.0.wait().expect("the process can be waited for");
    }
}

impl Drop for ReplicaProcess {
    fn drop(&mut self) {
        // Fails only if it has ended.
        let _killed = self.0.kill();
        self.0.wait().expect("the process can be waited for");
    }
}
