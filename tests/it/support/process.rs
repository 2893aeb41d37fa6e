//! The program as a process.

use std::{
    net::SocketAddr,
    path::Path,
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use super::{SOON, soon};

/// The program with nothing of the surroundings that could change what it does.
pub(crate) fn waypost(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waypost"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WAYPOST_") {
            command.env_remove(name);
        }
    }
    command.current_dir(directory).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs a command to its end.
pub(crate) async fn output(mut command: Command) -> Output {
    soon("the end of a command", command.output()).await.expect("the command runs")
}

/// `waypost serve` on a port that was free.
pub(crate) struct ServerProcess {
    pub(crate) address: SocketAddr,
    child: Child,
    _directory: TempDir,
}

impl ServerProcess {
    pub(crate) async fn start() -> Self {
        let directory = TempDir::new().expect("a directory");
        let port_file = directory.path().join("port");
        let mut child = waypost(directory.path())
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "warn", "--port-file"])
            .arg(&port_file)
            .spawn()
            .expect("the server starts");
        let given_up = Instant::now() + SOON;
        let address = loop {
            // The file appears whole or not at all.
            if let Ok(text) = std::fs::read_to_string(&port_file) {
                break text.trim().parse().expect("an address");
            }
            let ended = child.try_wait().expect("the process can be asked");
            assert_eq!(ended, None, "the server ended");
            assert!(Instant::now() < given_up, "the server does not say where it listens");
            sleep(Duration::from_millis(5)).await;
        };
        Self { address, child, _directory: directory }
    }

    /// Sends a signal by its name.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.child.id().expect("the server runs").to_string();
        let mut kill = Command::new("kill");
        kill.args(["-s", name, &id]);
        assert!(output(kill).await.status.success(), "{name} is sent");
    }

    /// Resident bytes.
    pub(crate) fn memory(&self) -> u64 {
        let id = self.child.id().expect("the server runs");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("a status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
        let kib = line.split_whitespace().nth(1).expect("a number");
        kib.parse::<u64>().expect("a number") * 1024
    }

    pub(crate) async fn end(&mut self) -> ExitStatus {
        soon("the end of the server", self.child.wait()).await.expect("it can be waited for")
    }
}
