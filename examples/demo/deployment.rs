//! The processes: the registry, the gateway, and the replicas by id. The acts on them are here,
//! their times in the script.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ChildStdout,
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use waypost_client::Client;

use crate::{
    Outcome,
    access::{self, Access},
    process::{Part, Process},
    script::Action,
};

/// The longest start of a process.
pub(crate) const START_MAX: Duration = Duration::from_secs(30);
/// The interval of checks for its port file.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// In the order in which they end: the directory after the processes that write to it.
pub(crate) struct Deployment {
    /// By their ids.
    replicas: BTreeMap<String, Process>,
    /// Processes that drain.
    leaving: Vec<Process>,
    gateway: Process,
    /// The address of the gateway.
    gateway_address: SocketAddr,
    admin_address: SocketAddr,
    /// None while it is away.
    registry: Option<Process>,
    /// The same after each restart.
    registry_address: SocketAddr,
    access: Access,
    directory: TempDir,
}

impl Deployment {
    /// A registry and a gateway, and no replicas.
    pub(crate) async fn set(directory: TempDir, access: Access) -> Outcome<Self> {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let (registry, registry_address) =
            start_registry(directory.path(), anywhere, &access).await?;
        let port_file = directory.path().join("gateway");
        let mut arguments: Vec<PathBuf> = vec![
            "--listen".into(),
            anywhere.to_string().into(),
            "--admin-listen".into(),
            anywhere.to_string().into(),
            "--registry".into(),
            format!("{}://{registry_address}", access.scheme()).into(),
            "--log".into(),
            "error".into(),
            "--port-file".into(),
            port_file.clone(),
        ];
        if let Some(folder) = access.of_workload("gateway")? {
            arguments.extend(["--tls".into(), folder]);
        }
        let mut gateway = Process::start(Part::Gateway, arguments)?;
        let said = said(&mut gateway, &port_file).await?;
        let (gateway_address, admin_address) =
            said.trim().split_once('\n').ok_or("the gateway says one address")?;
        Ok(Self {
            replicas: BTreeMap::new(),
            leaving: Vec::new(),
            gateway_address: gateway_address.parse()?,
            admin_address: admin_address.parse()?,
            gateway,
            registry: Some(registry),
            registry_address,
            access,
            directory,
        })
    }

    /// Starts a replica. The name of its service is the prefix of its id.
    pub(crate) fn start(&mut self, id: &str) -> Outcome<()> {
        let (service, _) = id.rsplit_once('-').ok_or("the id names no service")?;
        let mut arguments: Vec<PathBuf> =
            vec![service.into(), id.into(), self.registry_url().into()];
        arguments.extend(self.access.of_workload(service)?);
        let process = Process::start(Part::Replica, arguments)?;
        self.replicas.insert(id.to_owned(), process);
        Ok(())
    }

    pub(crate) async fn act(&mut self, act: Action) -> Outcome<()> {
        match act {
            Action::Kill(id) => drop(self.take(id)?),
            Action::Drain(id) => {
                let process = self.take(id)?;
                process.terminate()?;
                self.leaving.push(process);
            }
            Action::Start(id) => self.start(id)?,
            Action::KillRegistry => self.registry = None,
            Action::StartRegistry => {
                let (registry, _) =
                    start_registry(self.directory.path(), self.registry_address, &self.access)
                        .await?;
                self.registry = Some(registry);
            }
        }
        Ok(())
    }

    fn take(&mut self, id: &str) -> Outcome<Process> {
        Ok(self.replicas.remove(id).ok_or_else(|| format!("{id} is not there"))?)
    }

    /// The gateway's access log, once.
    pub(crate) fn access_log(&mut self) -> Outcome<ChildStdout> {
        Ok(self.gateway.output().ok_or("the log is read already")?)
    }

    pub(crate) fn gateway(&self) -> SocketAddr {
        self.gateway_address
    }

    pub(crate) fn registry_url(&self) -> String {
        format!("{}://{}", self.access.scheme(), self.registry_address)
    }

    /// A client that may do everything.
    pub(crate) fn client(&self) -> Outcome<Client> {
        access::client(&self.registry_url(), self.access.of_operator().as_deref())
    }

    /// A title for the picture.
    pub(crate) fn title(&self) -> String {
        let (gateway, registry) = (self.gateway_address, self.registry_url());
        format!("a gateway at http://{gateway}, over the registry at {registry}")
    }

    fn grpcurl_access(&self) -> String {
        let Some(folder) = self.access.of_operator() else { return "-plaintext".to_owned() };
        let file = |name: &str| folder.join(name).display().to_string();
        format!("-cacert {} -cert {} -key {}", file("ca.crt"), file("tls.crt"), file("tls.key"))
    }

    /// Commands to try meanwhile; lines that fit a terminal.
    pub(crate) fn invitation(&self) -> [String; 4] {
        let (gateway, admin, registry) =
            (self.gateway_address, self.admin_address, self.registry_address);
        [
            format!("  curl -i http://{gateway}/orders/7"),
            format!("  curl http://{admin}/health/ready; curl http://{admin}/metrics"),
            format!(r#"  grpcurl {} -d '{{"service":"orders"}}' \"#, self.grpcurl_access()),
            format!("    {registry} waypost.v1.Discovery/Resolve"),
        ]
    }
}

/// Starts the registry with what it kept in `directory`, if there is something; where it listens.
async fn start_registry(
    directory: &Path,
    listen: SocketAddr,
    access: &Access,
) -> Outcome<(Process, SocketAddr)> {
    let port_file = directory.join("registry");
    // Of the one before.
    let _gone = fs::remove_file(&port_file);
    let mut arguments: Vec<PathBuf> = vec![
        "serve".into(),
        "--listen".into(),
        listen.to_string().into(),
        "--data-dir".into(),
        directory.join("data"),
        "--log".into(),
        "error".into(),
        "--port-file".into(),
        port_file.clone(),
    ];
    arguments.extend(access.of_registry());
    let mut registry = Process::start(Part::Registry, &arguments)?;
    let address = said(&mut registry, &port_file).await?.trim().parse()?;
    Ok((registry, address))
}

/// The contents of a process's port file once it serves.
async fn said(process: &mut Process, port_file: &Path) -> Outcome<String> {
    let said = async {
        loop {
            // The file appears whole or not at all.
            if let Ok(said) = fs::read_to_string(port_file) {
                return Ok(said);
            }
            if process.has_ended()? {
                return Err("a process ended before it served".into());
            }
            sleep(LOOK_INTERVAL).await;
        }
    };
    timeout(START_MAX, said).await?
}
