//! The registry's process on a directory that outlives it, and always on the same address.

use std::{error::Error, net::SocketAddr, time::Duration};

use tempfile::TempDir;
use tokio::{net::TcpSocket, process::Child, time::{Instant, sleep}};
use tonic::{Status, transport::{Channel, Endpoint}};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use waypost_testing::wait::{SOON, soon};

use crate::support::waypost;

const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// `waypost serve --store disk`. The process ends with this value.
pub(crate) struct Registry {
    directory: TempDir,
    address: SocketAddr,
    /// Has the port and never listens: while the process is dead, the port stays free of others.
    _port: TcpSocket,
    child: Option<Child>,
}

impl Registry {
    /// A registry that has never run, on a port that was free.
    pub(crate) fn new() -> Self {
        let port = TcpSocket::new_v4().expect("a socket");
        port.set_reuseaddr(true).expect("an option of sockets");
        port.bind("127.0.0.1:0".parse().expect("an address")).expect("a port is free");
        let address = port.local_addr().expect("it is bound");
        let directory = TempDir::new().expect("a directory");
        Self { directory, address, _port: port, child: None }
    }

    /// Starts the process and waits until it serves.
    pub(crate) async fn start(&mut self) {
        self.launch();
        let given_up = Instant::now() + SOON;
        while !self.serves().await {
            let ended = self.child.as_mut().expect("it was launched").try_wait();
            let ended = ended.expect("the process can be asked");
            assert_eq!(ended, None, "the registry ended");
            assert!(Instant::now() < given_up, "the registry does not serve");
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Starts the process and kills it soon, wherever it then is on its way.
    pub(crate) async fn start_in_vain(&mut self, lives: Duration) {
        self.launch();
        sleep(lives).await;
        self.kill().await;
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        let ended = child.try_wait().expect("the process can be asked");
        assert_eq!(ended, None, "the registry ended before it was killed");
        soon("the end of the registry", child.kill()).await.expect("it can be killed");
    }

    /// A connection of its own.
    pub(crate) async fn channel(&self) -> Channel {
        soon("a connection", self.endpoint().connect()).await.expect("connected")
    }

    fn launch(&mut self) {
        let child = waypost(self.directory.path())
            .args(["serve", "--store", "disk", "--data-dir", "data", "--log", "warn", "--listen"])
            .arg(self.address.to_string())
            .spawn()
            .expect("the registry starts");
        self.child = Some(child);
    }

    async fn serves(&self) -> bool {
        let health = async {
            let channel = self.endpoint().connect().await;
            let channel = channel.map_err(|_| Status::unavailable("it does not listen yet"))?;
            HealthClient::new(channel).check(HealthCheckRequest::default()).await
        };
        let health = soon("the registry's health", health).await;
        health.is_ok_and(|health| health.get_ref().status() == ServingStatus::Serving)
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://{}", self.address)).expect("a URI")
    }
}

/// True where the status stands for a broken connection. A server's status has no source.
pub(crate) fn is_broken(status: &Status) -> bool {
    status.source().is_some()
}
