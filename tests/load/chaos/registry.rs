//! The registry's process, and its address in a file, so that it can come back at another port.

use std::{fs, io, net::SocketAddr, path::{Path, PathBuf}, time::{Duration, Instant}};

use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{net::TcpStream, process::Child, time::{sleep, timeout}};
use waypost_client::{Builder, Client};

use crate::{PATIENCE, support::waypost};

/// The name that clients use.
const NAME: &str = "registry";

/// `waypost serve`, with a memory that ends with its process.
pub(crate) struct Registry {
    directory: TempDir,
    child: Option<Child>,
}

/// A time in which it did not run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outage {
    pub(crate) from: Instant,
    pub(crate) until: Instant,
    pub(crate) kind: OutageKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutageKind {
    /// Stopped and continued.
    Stopped,
    /// Killed and started again, empty.
    Killed,
}

impl Registry {
    pub(crate) async fn start() -> Self {
        let mut registry = Self { directory: TempDir::new().expect("a directory"), child: None };
        registry.start_again().await;
        registry
    }

    pub(crate) async fn start_again(&mut self) {
        let child = waypost(self.directory.path())
            .args(["serve", "--listen", "127.0.0.1:0", "--store", "memory", "--log", "error"])
            .arg("--port-file")
            .arg(self.port_file())
            .spawn()
            .expect("the registry starts");
        self.child = Some(child);
        let there = async {
            while address(&self.port_file()).is_err() {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, there).await.expect("the registry comes up");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().and_then(Child::id).expect("it runs");
        let id = Pid::from_raw(i32::try_from(id).expect("an id")).expect("an id");
        kill_process(id, signal).expect("it can be signalled");
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self) {
        // Before it dies: the next owner of its port must get no calls.
        fs::remove_file(self.port_file()).expect("it has said where it listens");
        let mut child = self.child.take().expect("it runs");
        child.kill().await.expect("it can be killed");
    }

    pub(crate) fn port_file(&self) -> PathBuf {
        self.directory.path().join("port")
    }
}

/// The present address of the registry.
pub(crate) fn address(port_file: &Path) -> io::Result<SocketAddr> {
    let text = fs::read_to_string(port_file)?;
    text.trim().parse().map_err(io::Error::other)
}

/// A client of the registry, wherever it is when a connection is made.
pub(crate) fn client(port_file: &Path) -> Builder {
    let port_file = port_file.to_owned();
    Client::builder().registry(format!("http://{NAME}:1")).connector(tower::service_fn(
        move |uri: http::Uri| {
            let registry = (uri.host() == Some(NAME)).then(|| address(&port_file));
            async move {
                let address = match registry {
                    Some(address) => address?,
                    None => {
                        let authority = uri.authority().ok_or(io::ErrorKind::InvalidInput)?;
                        authority.as_str().parse().map_err(io::Error::other)?
                    }
                };
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        },
    ))
}
