//! A registry's process, and commands of the program against it.

use std::{
    ffi::OsStr,
    net::SocketAddr,
    path::Path,
    process::{ExitStatus, Stdio},
};

use rustix::process::Signal;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines, copy_bidirectional},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStderr, ChildStdout, Command},
    sync::watch,
    task::JoinSet,
};
use waypost_client::{Client, Registered, Registration};
use waypost_testing::{
    process::{RegistryProcess, Serve, signal},
    wait::soon,
};

use crate::support::serve;

/// Path of the program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_waypost");

/// Returns a command without any variable of the environment but `PATH`.
pub(crate) fn program<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(PROGRAM);
    // The environment of the tests does not count.
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// A registry in a process of its own.
pub(crate) struct Server {
    pub(crate) process: RegistryProcess,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(serve()).await
    }

    /// Starts a registry that stores everything in a directory.
    pub(crate) async fn start_on(data_dir: &Path) -> Self {
        Self::start_with(serve().disk(data_dir)).await
    }

    pub(crate) async fn start_with(serve: Serve) -> Self {
        Self { process: serve.start().await }
    }

    /// Stops it with SIGTERM.
    pub(crate) async fn stop(mut self) {
        self.process.signal(Signal::TERM);
        assert_eq!(self.process.end().await.code(), Some(0));
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.process.address()
    }

    pub(crate) fn directory(&self) -> &Path {
        self.process.directory()
    }

    pub(crate) fn url(&self) -> String {
        self.process.url()
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Finished {
        run(&self.url(), arguments).await
    }

    pub(crate) async fn json(&self, arguments: &[&str]) -> Value {
        let finished = self.run(&[arguments, &["--output", "json"]].concat()).await;
        assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
        serde_json::from_str(&finished.stdout).unwrap()
    }

    /// Starts a command that runs until a signal.
    pub(crate) fn start_command(&self, arguments: &[&str]) -> Running {
        Running::start(&self.url(), arguments)
    }

    pub(crate) async fn register(&self, registration: Registration) -> Registered {
        let client = Client::new(self.url()).unwrap();
        soon("a registration", client.register(registration)).await.unwrap()
    }
}

pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    #[track_caller]
    pub(crate) fn refused(&self, reason: &str) {
        assert_eq!((self.code, self.stdout.as_str()), (1, ""), "{}", self.stderr);
        assert_eq!(self.stderr.lines().count(), 1, "{}", self.stderr);
        assert!(self.stderr.starts_with("waypost: "), "{}", self.stderr);
        assert!(self.stderr.contains(reason), "{}", self.stderr);
    }
}

pub(crate) async fn run(url: &str, arguments: &[&str]) -> Finished {
    finish(program(arguments).env("WAYPOST_REGISTRY", url)).await
}

pub(crate) async fn finish(command: &mut Command) -> Finished {
    let output = soon("the command's end", command.output()).await.unwrap();
    Finished {
        code: output.status.code().expect("no signal ended it"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A command that runs.
pub(crate) struct Running {
    pub(crate) process: Child,
    pub(crate) stdout: Lines<BufReader<ChildStdout>>,
    pub(crate) stderr: Lines<BufReader<ChildStderr>>,
}

impl Running {
    pub(crate) fn start(url: &str, arguments: &[&str]) -> Self {
        let mut command = program(arguments);
        Self::spawn(command.env("WAYPOST_REGISTRY", url).env("WAYPOST", PROGRAM))
    }

    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap()).lines();
        let stderr = BufReader::new(process.stderr.take().unwrap()).lines();
        Self { process, stdout, stderr }
    }

    pub(crate) async fn line(&mut self) -> String {
        let line = soon("a line", self.stdout.next_line()).await.unwrap();
        line.expect("it writes on")
    }

    pub(crate) async fn event(&mut self) -> Value {
        serde_json::from_str(&self.line().await).unwrap()
    }

    pub(crate) async fn error_line(&mut self) -> String {
        let line = soon("a line", self.stderr.next_line()).await.unwrap();
        line.expect("it writes on")
    }

    pub(crate) fn signal(&self, number: Signal) {
        signal(self.process.id().expect("it runs"), number);
    }

    pub(crate) async fn end(mut self) -> (ExitStatus, String, String) {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        soon("the output's end", async {
            self.stdout.get_mut().read_to_string(&mut stdout).await.unwrap();
            self.stderr.get_mut().read_to_string(&mut stderr).await.unwrap();
        })
        .await;
        (soon("the end", self.process.wait()).await.unwrap(), stdout, stderr)
    }
}

/// An address of the registry behind which it can be away.
pub(crate) struct Gate {
    pub(crate) address: SocketAddr,
    pub(crate) behind: watch::Sender<Option<SocketAddr>>,
    pub(crate) _tasks: JoinSet<()>,
}

impl Gate {
    pub(crate) async fn before(server: Option<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (behind, _) = watch::channel(server);
        let mut tasks = JoinSet::new();
        tasks.spawn(pass(listener, behind.clone()));
        Self { address, behind, _tasks: tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn put(&self, server: Option<SocketAddr>) {
        self.behind.send_replace(server);
    }
}

pub(crate) async fn pass(listener: TcpListener, behind: watch::Sender<Option<SocketAddr>>) {
    let mut connections = JoinSet::new();
    while let Ok((mut near, _)) = listener.accept().await {
        let mut behind = behind.subscribe();
        connections.spawn(async move {
            let Some(server) = *behind.borrow_and_update() else { return };
            let mut far = TcpStream::connect(server).await.unwrap();
            tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => {}
                _ = behind.changed() => {}
            }
        });
    }
}
