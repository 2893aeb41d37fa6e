//! What benchmarks of the whole server share: the server as a process, the instances that are
//! registered, and how figures are shown.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use waypost_client::proto::Instance;

pub(crate) const CONNECTIONS: usize = 16;
pub(crate) const CALLERS: usize = 64;
/// Instances of a service.
pub(crate) const A_SERVICE: u64 = 20;

const ANY_PORT: &str = "127.0.0.1:0";

/// A server in a process of its own, ended with this value.
pub(crate) struct Process {
    child: Child,
    address: String,
    _directory: TempDir,
}

impl Process {
    /// The registry with the given store.
    pub(crate) fn waypost(store: &str) -> Self {
        // A disk where builds are kept: elsewhere temporary files may lie in memory.
        let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let data = directory.path().join("data");
        Self::start(store, &data, ANY_PORT, directory)
    }

    /// An empty registry that remembers nothing, where another one listened before.
    pub(crate) fn forgetful_at(address: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let data = directory.path().join("data");
        Self::start("memory", &data, address, directory)
    }

    fn start(store: &str, data: &Path, listen: &str, directory: TempDir) -> Self {
        let port_file = directory.path().join("port");
        let child = Command::new(env!("CARGO_BIN_EXE_waypost"))
            .args(["serve", "--listen", listen, "--store", store, "--port-file"])
            .arg(&port_file)
            .arg("--data-dir")
            .arg(data)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !port_file.exists() {
            assert!(Instant::now() < deadline, "the server does not come up");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self::new(child, &fs::read_to_string(port_file).unwrap(), directory)
    }

    /// Another server, which listens on the address and may work in the directory.
    pub(crate) fn new(child: Child, address: &str, directory: TempDir) -> Self {
        Self { child, address: address.trim().to_owned(), _directory: directory }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) async fn connect_once(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.tcp_nodelay(true).connect().await.unwrap()
    }

    pub(crate) async fn connect(&self) -> Vec<Channel> {
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS {
            channels.push(self.connect_once().await);
        }
        channels
    }

    fn told(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap()
    }

    /// Resident bytes.
    pub(crate) fn memory(&self) -> u64 {
        memory_of(&self.child.id().to_string())
    }

    /// The time that it ran, in the kernel or not.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = self.told("stat");
        // The name, in brackets, may hold anything.
        let (_, rest) = stat.rsplit_once(')').unwrap();
        let ticks = rest.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>());
        // Linux tells it in hundredths of a second, whatever its timer's frequency.
        Duration::from_millis(ticks.map(Result::unwrap).sum::<u64>() * 10)
    }

    /// Bytes that it had written to disks.
    pub(crate) fn disk_bytes(&self) -> u64 {
        let io = self.told("io");
        io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap().parse().unwrap()
    }
}

/// Resident bytes of a process.
pub(crate) fn memory_of(process: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// An instance as most are.
pub(crate) fn instance(service: &str, index: u64) -> Instance {
    let entry = |key| (format!("key-{key}"), format!("value-{key}-{index}"));
    Instance {
        service: service.to_owned(),
        id: format!("0190c5c2-7c1f-7a5e-9b1d-{index:012}"),
        host: "10.0.0.1".to_owned(),
        port: 8080,
        zone: "zone-a".to_owned(),
        version: "1.2.3".to_owned(),
        metadata: (0..4).map(entry).collect(),
        ..Instance::default()
    }
}

/// The median, and the least and the most.
pub(crate) fn spread(figures: impl Iterator<Item = f64>) -> String {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let show = |figure: f64| {
        if figure < 100.0 { format!("{figure:.2}") } else { format!("{figure:.0}") }
    };
    let median = figures[figures.len() / 2];
    format!("{} ({} to {})", show(median), show(figures[0]), show(figures[figures.len() - 1]))
}
