//! The server keeps the registry's contract, over a socket.

use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt;
use waypost::{Config, Server, config::StoreKind};
use waypost_testing::{
    conformance::{RegistryChannel, Subject},
    registry_conformance,
};

struct OverSocket {
    channel: Channel,
    _server: JoinSet<()>,
}

impl Subject for OverSocket {
    fn channel(&self) -> RegistryChannel {
        RegistryChannel::new(self.channel.clone().map_err(Into::into))
    }

    /// Returns at once: the server expires the lease, and the watch of the check waits.
    async fn expire(&self, _: &str, _: &str, _: &str) {}
}

async fn over_socket() -> OverSocket {
    let listen = "127.0.0.1:0".parse().expect("an address");
    let config = Config { listen, store: StoreKind::Memory, ..Config::default() };
    let server = Server::bind(config).expect("a free port");
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address())).expect("a URL");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { server.run(std::future::pending()).await.expect("no failure") });
    let channel = endpoint.connect().await.expect("a server that listens");
    OverSocket { channel, _server: tasks }
}

registry_conformance!(over_socket);
