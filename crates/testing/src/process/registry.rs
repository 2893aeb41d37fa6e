//! `waypost serve` as a process, which can be killed and started again in its directory.

use std::{
    ffi::OsString,
    fs,
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    thread,
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{
    io::AsyncReadExt,
    process::{Child, ChildStderr},
    sync::watch,
    time::{Instant, sleep},
};
use tonic::transport::Channel;

use super::{command, signal, usage};
use crate::{
    registry::connect,
    wait::{SOON, soon},
};

/// In the directory that the process runs in.
const PORT_FILE: &str = "port";
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// The arguments of `waypost serve`. By default: a free port, nothing stored, warnings logged.
#[derive(Clone, Debug)]
pub struct Serve {
    program: PathBuf,
    listen: SocketAddr,
    store: Vec<OsString>,
    log: &'static str,
    more: Vec<OsString>,
    parent: Option<PathBuf>,
}

impl Serve {
    /// Returns the default arguments for the executable at `program`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            listen: ([127, 0, 0, 1], 0).into(),
            store: vec!["--store".into(), "memory".into()],
            log: "warn",
            more: Vec::new(),
            parent: None,
        }
    }

    /// Listens at an address that is known before the process serves.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// Stores everything in a directory; a relative path is in the directory of the process.
    pub fn disk(mut self, data: impl Into<OsString>) -> Self {
        self.store = vec!["--store".into(), "disk".into(), "--data-dir".into(), data.into()];
        self
    }

    /// Makes the directory of the process below another one than that for temporary files, which
    /// may be in memory.
    pub fn directory_in(mut self, parent: impl Into<PathBuf>) -> Self {
        self.parent = Some(parent.into());
        self
    }

    /// Sets the filter of the log.
    pub fn log(mut self, filter: &'static str) -> Self {
        self.log = filter;
        self
    }

    /// Adds arguments.
    pub fn arguments(mut self, more: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.more.extend(more.into_iter().map(Into::into));
        self
    }

    /// Starts the process in a new directory and waits until it serves.
    ///
    /// # Panics
    /// If it does not serve soon.
    pub async fn start(self) -> RegistryProcess {
        let mut registry = self.stopped();
        registry.start().await;
        registry
    }

    /// Starts the process in a new directory and returns before it serves.
    ///
    /// # Panics
    /// If the executable can't be run.
    pub fn launch(self) -> RegistryProcess {
        let mut registry = self.stopped();
        registry.launch();
        registry
    }

    /// Makes the directory of the process and does not start it.
    ///
    /// # Panics
    /// If no directory can be made.
    pub fn stopped(self) -> RegistryProcess {
        let address = self.listen;
        let directory = match &self.parent {
            Some(parent) => TempDir::new_in(parent),
            None => TempDir::new(),
        };
        let directory = directory.expect("a directory");
        RegistryProcess { serve: self, directory, address, running: None }
    }
}

/// The process of a registry, and its directory. Dropping it kills the process.
#[derive(Debug)]
pub struct RegistryProcess {
    serve: Serve,
    directory: TempDir,
    address: SocketAddr,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    /// Everything that it has written to standard error.
    log: watch::Receiver<String>,
}

impl RegistryProcess {
    /// Starts the process, again if it ran before, and waits until it serves.
    ///
    /// # Panics
    /// If it runs, or does not serve soon.
    pub async fn start(&mut self) {
        self.launch();
        self.serves().await;
    }

    /// Starts the process and returns before it serves.
    ///
    /// # Panics
    /// If it runs, or can't be run.
    pub fn launch(&mut self) {
        assert!(self.running.is_none(), "the registry runs");
        let Serve { program, listen, store, log, more, .. } = &self.serve;
        let mut child = command(program, self.directory.path())
            .args(["serve", "--port-file", PORT_FILE, "--listen", &listen.to_string()])
            .args(["--log", log])
            .args(store)
            .args(more)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the registry starts");
        let log = collect(child.stderr.take().expect("it is piped"));
        self.running = Some(Running { child, log });
    }

    /// Waits until a launched process serves.
    ///
    /// # Panics
    /// If it ends, or does not serve soon.
    pub async fn serves(&mut self) {
        let deadline = Instant::now() + SOON;
        let port_file = self.port_file();
        self.address = loop {
            if let Ok(address) = read_port_file(&port_file) {
                break address;
            }
            let ended = self.child().try_wait().expect("the process can be waited for");
            assert_eq!(ended, None, "the registry ended before it served: {}", self.log());
            assert!(Instant::now() < deadline, "the registry does not serve: {}", self.log());
            sleep(POLL_INTERVAL).await;
        };
    }

    /// Kills the process with SIGKILL.
    ///
    /// # Panics
    /// If it does not run any more.
    pub async fn kill(&mut self) {
        // First the port file: no client may connect to the process that gets the port next.
        let _absent = fs::remove_file(self.port_file());
        let mut running = self.running.take().expect("it runs");
        let ended = running.child.try_wait().expect("the process can be waited for");
        assert_eq!(ended, None, "the registry ended before it was killed");
        soon("the end of the registry", running.child.kill()).await.expect("it can be killed");
    }

    /// Sends a signal to the process.
    ///
    /// # Panics
    /// If it does not run.
    pub fn signal(&self, number: Signal) {
        signal(self.id(), number);
    }

    /// Waits until the process ends.
    ///
    /// # Panics
    /// If it does not end soon.
    pub async fn end(&mut self) -> ExitStatus {
        let end = soon("the end of the registry", self.child().wait()).await;
        end.expect("the process can be waited for")
    }

    /// Returns the address that it listens at.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns its address as clients and commands take it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Opens a connection to it.
    ///
    /// # Panics
    /// If it accepts no connection soon.
    pub async fn channel(&self) -> Channel {
        connect(self.address).await
    }

    /// Returns the directory that it runs in.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the path of the file that has its address while it runs.
    pub fn port_file(&self) -> PathBuf {
        self.directory.path().join(PORT_FILE)
    }

    /// Returns what it has written to standard error.
    pub fn log(&self) -> String {
        self.running.as_ref().map_or_else(String::new, |running| running.log.borrow().clone())
    }

    /// Waits for a text in what it writes to standard error.
    ///
    /// # Panics
    /// If the text does not come soon.
    pub async fn logs(&mut self, text: &str) {
        let log = &mut self.running.as_mut().expect("it runs").log;
        let found = log.wait_for(|log| log.contains(text));
        soon(text, found).await.expect("the registry runs on");
    }

    /// Returns the id of the process.
    ///
    /// # Panics
    /// If it does not run.
    pub fn id(&self) -> u32 {
        let id = self.running.as_ref().and_then(|running| running.child.id());
        id.expect("the registry runs")
    }

    /// Returns its resident memory in bytes.
    pub fn memory_bytes(&self) -> u64 {
        usage::memory_bytes(&self.id().to_string())
    }

    /// Returns its CPU time.
    pub fn cpu_time(&self) -> Duration {
        usage::cpu_time(&self.id().to_string())
    }

    /// Returns how many bytes it caused to be written to disks.
    pub fn disk_bytes(&self) -> u64 {
        usage::disk_bytes(&self.id().to_string())
    }

    fn child(&mut self) -> &mut Child {
        &mut self.running.as_mut().expect("the registry was started").child
    }
}

impl Drop for RegistryProcess {
    /// Adds the log of the process to the output of a test that fails.
    fn drop(&mut self) {
        if thread::panicking() {
            // An error here must not keep the rest from being dropped.
            let _unwritten = io::stderr().write_all(self.log().as_bytes());
        }
    }
}

/// Reads the address from a port file, which appears whole or not at all.
pub fn read_port_file(path: &Path) -> io::Result<SocketAddr> {
    fs::read_to_string(path)?.trim().parse().map_err(io::Error::other)
}

/// Collects what a process writes.
fn collect(mut output: ChildStderr) -> watch::Receiver<String> {
    let (sender, log) = watch::channel(String::new());
    tokio::spawn(async move {
        let mut chunk = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = output.read(&mut chunk).await {
            sender.send_modify(|log| log.push_str(&String::from_utf8_lossy(&chunk[..read])));
        }
    });
    log
}
