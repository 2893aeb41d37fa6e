//! The server of a run: a running one, or one that is started for the run and killed with it.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use http::{Uri, uri::Authority};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use waypost_client::RegistryChannel;

use crate::{
    error::BenchError,
    load::connection::BenchConnection,
    process::listening_on,
    protocol::{System, SystemProtocol},
};

/// The time that a started server may take to respond.
const UP_MAX: Duration = Duration::from_secs(120);
/// The interval of checks whether it responds.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// A program to start.
#[derive(Clone, Debug)]
pub(crate) struct ServerProgram {
    pub(crate) system: System,
    pub(crate) file: PathBuf,
    /// Arguments besides the address and the data directory.
    pub(crate) arguments: Vec<String>,
}

/// A server under load.
#[derive(Debug)]
pub(crate) struct BenchServer {
    address: Mutex<ServerAddress>,
    own: Mutex<Option<SpawnedServer>>,
    /// The way to a running registry; none to a server that was started for the run.
    registry: Option<RunningRegistry>,
}

/// A running registry: how connections reach it.
#[derive(Clone, Debug)]
struct RunningRegistry {
    channel: RegistryChannel,
    scheme: &'static str,
}

/// The current address and process of a server.
#[derive(Clone, Debug)]
struct ServerAddress {
    authority: Authority,
    pid: Option<u32>,
}

/// A server that was started for the run. Killed on drop.
#[derive(Debug)]
struct SpawnedServer {
    child: Child,
    program: ServerProgram,
    directory: TempDir,
}

impl Drop for SpawnedServer {
    fn drop(&mut self) {
        // Fails if it has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl BenchServer {
    /// Uses a running server at `url`, which `channel` leads to.
    pub(crate) fn running(url: &str, channel: RegistryChannel) -> Result<Self, BenchError> {
        let bad = || BenchError::Url { url: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let authority = uri.authority().filter(|it| it.port().is_some()).ok_or_else(bad)?.clone();
        let scheme = match uri.scheme_str() {
            Some("http") => "http",
            Some("https") => "https",
            _ => return Err(bad()),
        };
        if !matches!(uri.path(), "" | "/") {
            return Err(bad());
        }
        let pid = authority.as_str().parse::<SocketAddr>().ok().and_then(listening_on);
        Ok(Self {
            address: Mutex::new(ServerAddress { authority, pid }),
            own: Mutex::new(None),
            registry: Some(RunningRegistry { channel, scheme }),
        })
    }

    /// Starts a server with a directory below the current one: temporary files elsewhere may be in
    /// memory, where syncing costs nothing.
    pub(crate) async fn start(program: ServerProgram) -> Result<Self, BenchError> {
        let directory = tempfile::Builder::new().prefix(".waypost-bench-").tempdir_in(".");
        let directory = directory.map_err(|source| directory_failure(Path::new("."), source))?;
        let (child, authority) = launch(&program, directory.path()).await?;
        let address = ServerAddress { authority, pid: Some(child.id()) };
        let own = SpawnedServer { child, program, directory };
        Ok(Self { address: Mutex::new(address), own: Mutex::new(Some(own)), registry: None })
    }

    /// Kills the server and starts it again from its data. Returns the time from the kill to the
    /// first answered lookup.
    pub(crate) async fn restart(&self) -> Result<Duration, BenchError> {
        let own = self.own.lock().take();
        let mut own = own.expect("the server was started for the run");
        let file = own.program.file.clone();
        let start = Instant::now();
        let killed = own.child.kill().and_then(|()| own.child.wait());
        killed.map_err(|source| BenchError::Start { program: file, source })?;
        let (child, authority) = launch(&own.program, own.directory.path()).await?;
        let took = start.elapsed();
        *self.address.lock() = ServerAddress { authority, pid: Some(child.id()) };
        own.child = child;
        *self.own.lock() = Some(own);
        Ok(took)
    }

    /// Stops a server that was started for the run, whatever else still refers to it.
    pub(crate) fn stop(&self) {
        drop(self.own.lock().take());
    }

    pub(crate) fn authority(&self) -> Authority {
        self.address.lock().authority.clone()
    }

    /// Returns the server's process, if it is visible.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.address.lock().pid
    }

    /// Returns whether the server was started for the run.
    pub(crate) fn is_own(&self) -> bool {
        self.registry.is_none()
    }

    /// Opens a connection that counts received bytes.
    pub(crate) async fn connect(
        &self,
        received_bytes: &Arc<AtomicU64>,
    ) -> Result<BenchConnection, BenchError> {
        let authority = self.authority();
        match &self.registry {
            None => BenchConnection::open(&authority, received_bytes).await,
            Some(RunningRegistry { channel, scheme }) => {
                BenchConnection::open_registry(channel, &authority, scheme, received_bytes).await
            }
        }
    }

    /// Returns the size of its data directory.
    pub(crate) fn disk_bytes(&self) -> Result<u64, BenchError> {
        let own = self.own.lock();
        let Some(own) = &*own else { return Ok(0) };
        let data = data_dir(own.directory.path());
        sum(&data).map_err(|source| directory_failure(&data, source))
    }
}

fn data_dir(directory: &Path) -> PathBuf {
    directory.join("data")
}

fn sum(directory: &Path) -> io::Result<u64> {
    let entries = match fs::read_dir(directory) {
        // A server without durable storage.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { sum(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

fn directory_failure(directory: &Path, source: io::Error) -> BenchError {
    BenchError::Directory { directory: directory.to_owned(), source }
}

/// Starts a program and waits until it answers a lookup.
async fn launch(
    program: &ServerProgram,
    directory: &Path,
) -> Result<(Child, Authority), BenchError> {
    let failure = |source| BenchError::Start { program: program.file.clone(), source };
    let port_file = directory.join("port");
    // Left by the previous process.
    let _ = fs::remove_file(&port_file);
    let mut command = Command::new(&program.file);
    command.args(&program.arguments).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    match program.system {
        System::Waypost => {
            command.args(["--listen", "127.0.0.1:0", "--port-file"]).arg(&port_file);
            command.arg("--data-dir").arg(data_dir(directory));
        }
        System::Etcd => {
            let address = etcd_arguments(&mut command, directory).map_err(failure)?;
            fs::write(&port_file, address).map_err(failure)?;
        }
    }
    let mut child = command.spawn().map_err(failure)?;
    let up = wait(program.system.protocol(), &port_file);
    let authority = timeout(UP_MAX, up).await;
    let Ok(authority) = authority else {
        let _ = child.kill().and_then(|()| child.wait());
        let what = program.system.name();
        return Err(BenchError::Silent { what, seconds: UP_MAX.as_secs() });
    };
    Ok((child, authority))
}

/// Adds etcd's addresses, with defaults for all else. Returns the client address.
fn etcd_arguments(command: &mut Command, directory: &Path) -> io::Result<String> {
    // etcd does not report the port of a `:0` address, so it gets one that was free a moment ago.
    let free = || TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let (clients, peers) = (free()?, free()?);
    let url = |address| format!("http://{address}");
    command.arg("--data-dir").arg(data_dir(directory));
    command.arg(format!("--listen-client-urls={}", url(clients)));
    command.arg(format!("--advertise-client-urls={}", url(clients)));
    command.arg(format!("--listen-peer-urls={}", url(peers)));
    Ok(clients.to_string())
}

/// Waits for the first answered lookup.
async fn wait(protocol: &dyn SystemProtocol, port_file: &Path) -> Authority {
    loop {
        let address = fs::read_to_string(port_file).ok();
        if let Some(authority) = address.and_then(|address| address.trim().parse().ok())
            && let Ok(connection) = BenchConnection::open(&authority, &Default::default()).await
            && connection.call(protocol.resolve("default", "service-0")).await.is_ok()
        {
            return authority;
        }
        sleep(LOOK_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_without_a_server_are_rejected() {
        let client = waypost_client::Client::new("http://127.0.0.1:7510").unwrap();
        let running = |url| BenchServer::running(url, client.registry());
        for url in ["http://127.0.0.1:7510", "http://registry:7510/", "https://h:1"] {
            assert!(running(url).is_ok(), "{url}");
        }
        for bad in ["", "127.0.0.1:7510", "http://127.0.0.1", "ftp://h:1", "http://h:1/x"] {
            assert!(matches!(running(bad), Err(BenchError::Url { .. })), "{bad}");
        }
    }
}
