//! The program as a process.

use std::{
    ffi::OsStr,
    io::{self, Write},
    net::SocketAddr,
    path::Path,
    process::{ExitStatus, Output, Stdio},
    thread,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::AsyncReadExt,
    process::{Child, ChildStderr, Command},
    sync::watch,
    time::{Instant, sleep},
};

use super::{SOON, soon};

/// In the directory that the server runs in.
const PORT_FILE: &str = "port";

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

/// `waypost serve`. The process ends with this value.
pub(crate) struct ServerProcess {
    pub(crate) address: SocketAddr,
    child: Child,
    /// What it wrote to standard error so far.
    log: watch::Receiver<String>,
    directory: TempDir,
}

impl ServerProcess {
    /// On a port that was free, with nothing kept.
    pub(crate) async fn start() -> Self {
        Self::start_with(["--store", "memory", "--log", "warn"]).await
    }

    /// The same with arguments, once it serves.
    pub(crate) async fn start_with<A: AsRef<OsStr>>(
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        let mut server = Self::launch("127.0.0.1:0".parse().expect("an address"), arguments);
        server.serves().await;
        server
    }

    /// Waits until it serves.
    async fn serves(&mut self) {
        let port_file = self.directory.path().join(PORT_FILE);
        let given_up = Instant::now() + SOON;
        self.address = loop {
            // The file appears whole or not at all.
            if let Ok(text) = std::fs::read_to_string(&port_file) {
                break text.trim().parse().expect("an address");
            }
            let ended = self.child.try_wait().expect("the process can be asked");
            assert_eq!(ended, None, "the server ended");
            assert!(Instant::now() < given_up, "the server does not say where it listens");
            sleep(Duration::from_millis(5)).await;
        };
    }

    /// Begins to start, at an address that is known before it serves.
    pub(crate) fn launch<A: AsRef<OsStr>>(
        address: SocketAddr,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        let directory = TempDir::new().expect("a directory");
        let mut child = waypost(directory.path())
            .args(["serve", "--port-file", PORT_FILE, "--listen", &address.to_string()])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let log = gathered(child.stderr.take().expect("it is piped"));
        Self { address, child, log, directory }
    }

    /// What it wrote to standard error so far.
    pub(crate) fn log(&self) -> String {
        self.log.borrow().clone()
    }

    /// Waits for a text in what it writes to standard error.
    pub(crate) async fn logs(&mut self, text: &str) {
        let found = self.log.wait_for(|log| log.contains(text));
        soon(text, found).await.expect("the server goes on");
    }

    /// `kill -9`.
    pub(crate) async fn kill(mut self) {
        let ended = self.child.try_wait().expect("the process can be asked");
        assert_eq!(ended, None, "the server ended before it was killed");
        soon("the end of the server", self.child.kill()).await.expect("it can be killed");
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("the server runs")
    }

    /// Sends a signal by its name.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.id().to_string();
        let mut kill = Command::new("kill");
        kill.args(["-s", name, &id]);
        assert!(output(kill).await.status.success(), "{name} is sent");
    }

    /// Resident bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("a status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
        let kib = line.split_whitespace().nth(1).expect("a number");
        kib.parse::<u64>().expect("a number") * 1024
    }

    pub(crate) async fn end(&mut self) -> ExitStatus {
        soon("the end of the server", self.child.wait()).await.expect("it can be waited for")
    }
}

impl Drop for ServerProcess {
    /// What it had to say belongs to what a test that fails says.
    fn drop(&mut self) {
        if thread::panicking() {
            // Where nobody listens, what else is dropped has to be dropped all the same.
            let _gone = io::stderr().write_all(self.log.borrow().as_bytes());
        }
    }
}

/// All that a process writes, as it comes.
fn gathered(mut output: ChildStderr) -> watch::Receiver<String> {
    let (log, gathered) = watch::channel(String::new());
    tokio::spawn(async move {
        let mut chunk = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = output.read(&mut chunk).await {
            log.send_modify(|log| log.push_str(&String::from_utf8_lossy(&chunk[..read])));
        }
    });
    gathered
}
