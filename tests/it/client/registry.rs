//! A registry that tests start, end, and start anew under the same name.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::oneshot, task::JoinHandle};
use tonic::transport::{Channel, Endpoint};
use waypost::{Config, Server, config::StoreKind};
use waypost_client::{
    Builder, Client,
    proto::{ChangeKind, ChangeReason, discovery_client::DiscoveryClient},
};
use waypost_testing::{registry::watch_of, watch::Follower};

/// The name that clients use.
const NAME: &str = "registry.localhost";

pub(crate) struct Registry {
    config: Config,
    /// The present target of the name.
    address: Arc<Mutex<Option<SocketAddr>>>,
    running: Option<Running>,
}

struct Running {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl Registry {
    pub(crate) fn start() -> Self {
        Self::start_with(Config { store: StoreKind::Memory, ..Config::default() })
    }

    pub(crate) fn start_with(config: Config) -> Self {
        let config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..config };
        let mut registry = Self { config, address: Arc::default(), running: None };
        registry.start_again();
        registry
    }

    /// Starts it where it was ended. It remembers nothing.
    pub(crate) fn start_again(&mut self) {
        let server = Server::bind(self.config.clone()).unwrap();
        *self.address.lock().unwrap() = Some(server.address());
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(async {
            let stopped = async {
                let _gone = stopped.await;
            };
            server.run(stopped).await.unwrap();
        });
        self.running = Some(Running { stop, ended });
    }

    /// Ends it and waits for the end.
    pub(crate) async fn end(&mut self) {
        let running = self.running.take().unwrap();
        *self.address.lock().unwrap() = None;
        running.stop.send(()).unwrap();
        running.ended.await.unwrap();
    }

    /// Clients that reach it by its name, and instances by their addresses.
    pub(crate) fn builder(&self) -> Builder {
        let address = Arc::clone(&self.address);
        Client::builder().registry(format!("http://{NAME}:1")).connector(tower::service_fn(
            move |uri: http::Uri| {
                let named = *address.lock().unwrap();
                async move {
                    let stream = match (uri.host(), named) {
                        (Some(NAME), Some(address)) => TcpStream::connect(address).await?,
                        (Some(NAME), None) => return Err(io::ErrorKind::ConnectionRefused.into()),
                        (Some("nowhere"), _) => return Err(io::ErrorKind::HostUnreachable.into()),
                        _ => TcpStream::connect(uri.authority().unwrap().as_str()).await?,
                    };
                    stream.set_nodelay(true)?;
                    Ok::<_, io::Error>(TokioIo::new(stream))
                }
            },
        ))
    }

    pub(crate) fn client(&self) -> Client {
        self.builder().build().unwrap()
    }

    /// The address as processes take it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address.lock().unwrap().unwrap())
    }

    /// A bare channel to it.
    pub(crate) fn channel(&self) -> Channel {
        Endpoint::from_shared(self.url()).unwrap().connect_lazy()
    }

    /// Opens a watch of its own and folds the snapshot.
    pub(crate) async fn watch(&self, service: &str) -> Follower {
        Follower::ready(&mut DiscoveryClient::new(self.channel()), watch_of(&[service])).await
    }
}

/// Returns the id of the next instance that is removed, and the reason. Loses further removals
/// in the same message.
pub(crate) async fn next_removal(watch: &mut Follower) -> (String, ChangeReason) {
    loop {
        let seen = watch.changes.len();
        watch.message().await;
        let mut new = watch.changes[seen..].iter();
        if let Some(change) = new.find(|change| change.kind() == ChangeKind::Removed) {
            let instance = change.instance.as_ref().expect("a change has its instance");
            return (instance.id.clone(), change.reason());
        }
    }
}
