//! A server in this process, on a port that was free.

use std::net::SocketAddr;

use tokio::{sync::oneshot, task::JoinHandle};
use tonic::transport::{Channel, Endpoint};
use waypost::{Config, Server, config::StoreKind, model::Limits, server::RunError};
use waypost_client::proto::{
    GetStatusRequest, GetStatusResponse, admin_client::AdminClient,
    discovery_client::DiscoveryClient, registry_client::RegistryClient,
};
use waypost_testing::{registry::connect, wait::soon};

/// A running server and a connection to it. It stops when this is dropped.
pub(crate) struct TestServer {
    address: SocketAddr,
    channel: Channel,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), RunError>>,
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        Self::start_with(Limits::default()).await
    }

    pub(crate) async fn start_with(limits: Limits) -> Self {
        let listen = "127.0.0.1:0".parse().expect("an address");
        let config = Config { listen, limits, store: StoreKind::Memory, ..Config::default() };
        let mut server = Self::start_config(config);
        server.channel = connect(server.address).await;
        server
    }

    /// Starts a server with TLS or a policy, or both. Its own connection has no credentials, and
    /// is opened by its first call.
    pub(crate) fn start_config(config: Config) -> Self {
        let server = Server::bind(config).expect("the server binds");
        let address = server.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = tokio::spawn(server.run(async move {
            // Dropped or sent: both mean that the test is over.
            let _asked = stopped.await;
        }));
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URI");
        Self { address, channel: endpoint.connect_lazy(), stop, ended }
    }

    /// Stops the server and returns its task.
    pub(crate) fn ask_to_stop(self) -> JoinHandle<Result<(), RunError>> {
        self.stop.send(()).expect("the server still runs");
        self.ended
    }

    /// Stops the server, which has to end well.
    pub(crate) async fn stop(self) {
        let Self { channel, stop, ended, .. } = self;
        drop(channel);
        stop.send(()).expect("the server still runs");
        soon("the server's end", ended).await.expect("no panic").expect("the server ends well");
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn registry(&self) -> RegistryClient<Channel> {
        RegistryClient::new(self.channel.clone())
    }

    pub(crate) fn discovery(&self) -> DiscoveryClient<Channel> {
        DiscoveryClient::new(self.channel.clone()).max_decoding_message_size(4 * 1024 * 1024)
    }

    pub(crate) fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) async fn status(&self) -> GetStatusResponse {
        self.admin().get_status(GetStatusRequest {}).await.expect("a status").into_inner()
    }
}
