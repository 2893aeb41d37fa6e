//! The registry in memory behind a real socket, killed and started at will, with faults of its own
//! and a record of its requests. Each process runs on a runtime of its own, so that a kill closes
//! its connections without notice.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, Stream, StreamExt};
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming, body::Body, transport::server::Router};
use tower::util::BoxCloneSyncService;
use waypost_client::{
    Registration, fake,
    proto::{
        self, Instance,
        discovery_client::DiscoveryClient,
        discovery_server::{Discovery, DiscoveryServer},
        registry_client::RegistryClient,
        registry_server::{Registry, RegistryServer},
    },
};

type InMemory = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;
type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Names of servers and their present addresses. A server that is started again gets another port,
/// since another process may have the freed one, and is found by its name.
#[derive(Clone, Default)]
pub struct Network {
    names: Arc<Mutex<BTreeMap<String, SocketAddr>>>,
    connections: Arc<AtomicUsize>,
}

impl Network {
    /// Serves `router` under `name`, which nothing else is served under.
    pub fn start(&self, name: &str, router: Router) -> Process {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        let taken = self.names.lock().unwrap().insert(name.into(), address);
        assert_eq!(taken, None, "{name} is served already");
        Process { name: name.into(), network: self.clone(), runtime: Some(runtime) }
    }

    /// The number of attempts to connect.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Waits for this number of further attempts to connect.
    pub async fn until_asked(&self, more: usize) {
        let enough = self.connections() + more;
        while self.connections() < enough {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Connects to a name; refuses where nothing is served under it. A connection to `nowhere`
    /// never completes, one to `far` takes 150 ms.
    pub async fn connect(self, uri: Uri) -> Result<TokioIo<TcpStream>, std::io::Error> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        if uri.host() == Some("nowhere") {
            std::future::pending::<()>().await;
        }
        if uri.host() == Some("far") {
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        let address = uri.host().and_then(|name| self.names.lock().unwrap().get(name).copied());
        let address = address.ok_or(std::io::ErrorKind::ConnectionRefused)?;
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(TokioIo::new(stream))
    }
}

/// A server on a runtime of its own. Dropping it kills it.
pub struct Process {
    name: String,
    network: Network,
    runtime: Option<Runtime>,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.network.names.lock().unwrap().remove(&self.name);
        let runtime = self.runtime.take().unwrap();
        // Waited for, so that the dead server sends nothing more; on a thread, as a task must not
        // block.
        let killed = std::thread::spawn(|| runtime.shutdown_timeout(Duration::from_secs(5)));
        killed.join().unwrap();
    }
}

/// The faults of a registry, and its requests so far.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The present instances by their ids.
    pub instances: BTreeMap<String, Instance>,
    /// The instance in each response to a registration or an update.
    pub log: Vec<Instance>,
    /// Requests with leases to renew, over streams and otherwise.
    pub heartbeats: u64,
    /// Requests to register.
    pub registrations: u64,
    /// The number of responses to registrations that get lost from now on.
    pub answers_lost: u64,
    /// True while responses to registrations are held back.
    pub answers_wait: bool,
    /// The reason why registrations are refused.
    pub refuses: Option<&'static str>,
    /// True while unary heartbeats are refused, as by a registry that is not ready.
    pub starts: bool,
    /// The heartbeat interval of later registrations, in seconds; 50 ms where it is 0.
    pub interval: i64,
    /// Keep-alive streams so far.
    pub streams: u64,
    /// Open keep-alive streams.
    pub streams_open: u64,
    /// The leases that were renewed over streams.
    pub renewed: BTreeSet<u64>,
    /// True while heartbeats over streams get no response.
    pub silent: bool,
    /// The statuses of updates.
    pub statuses: Vec<proto::Status>,
    /// The number of open streams at each deregistration.
    pub streams_at_leave: Vec<u64>,
}

/// A registry with faults.
#[derive(Clone)]
pub struct Fake {
    registry: fake::Registry,
    state: Arc<Mutex<State>>,
}

impl Fake {
    /// An empty registry with a history of its own.
    pub fn new() -> Self {
        Self { registry: fake::Registry::new(), state: Arc::default() }
    }

    pub fn serve(&self, network: &Network, name: &str) -> Process {
        let router = tonic::transport::Server::builder()
            .add_service(RegistryServer::new(self.clone()))
            .add_service(DiscoveryServer::new(self.clone()));
        network.start(name, router)
    }

    /// The id of its history.
    pub fn history(&self) -> String {
        self.listed().cursor.unwrap().history_id
    }

    fn listed(&self) -> proto::ListServicesResponse {
        let mut discovery = self.discovery();
        let listed = discovery.list_services(proto::ListServicesRequest::default());
        listed.now_or_never().unwrap().unwrap().into_inner()
    }

    pub fn state(&self) -> State {
        let services = self.listed().services;
        let instances = services.iter().flat_map(|service| self.registry.instances(&service.name));
        let instances = instances.map(|instance| (instance.id.clone(), instance)).collect();
        State { instances, ..self.state.lock().unwrap().clone() }
    }

    /// Changes the faults.
    pub fn alter<T>(&self, alter: impl FnOnce(&mut State) -> T) -> T {
        alter(&mut self.state.lock().unwrap())
    }

    /// Expires the leases of all instances.
    pub fn expire_all(&self) {
        for instance in self.state().instances.values() {
            self.registry.expire(&instance.service, &instance.id).unwrap();
        }
    }

    /// Registers an instance that needs no heartbeats.
    pub fn place(&self, service: &str, id: &str, host: &str) {
        self.registry.join(Registration::new(service, host, 80).id(id));
    }

    /// Removes an instance.
    pub fn displace(&self, id: &str) {
        let service = &self.state().instances[id].service;
        self.registry.leave(service, id).unwrap();
    }

    /// The number of open watches.
    pub fn watches(&self) -> usize {
        self.registry.watchers()
    }

    /// Waits until the state is as `holds` requires.
    pub async fn until(&self, holds: impl Fn(&State) -> bool) {
        let waiting = async {
            while !holds(&self.state()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("the registry's state");
    }

    /// Waits while a fault lasts.
    async fn pass(&self, lasts: impl Fn(&State) -> bool) {
        while self.alter(|state| lasts(state)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn inner(&self) -> RegistryClient<InMemory> {
        RegistryClient::new(self.registry.grpc())
    }

    fn discovery(&self) -> DiscoveryClient<InMemory> {
        DiscoveryClient::new(self.registry.grpc())
    }
}

/// Counts a keep-alive stream until it ends.
struct OpenStream {
    fake: Fake,
}

impl OpenStream {
    fn new(fake: &Fake) -> Self {
        fake.alter(|state| {
            state.streams += 1;
            state.streams_open += 1;
        });
        Self { fake: fake.clone() }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.fake.alter(|state| state.streams_open -= 1);
    }
}

#[tonic::async_trait]
impl Registry for Fake {
    type KeepAliveStream = ResponseStream<proto::KeepAliveResponse>;

    async fn register(
        &self,
        request: Request<proto::RegisterRequest>,
    ) -> Result<Response<proto::RegisterResponse>, Status> {
        if let Some(reason) = self.alter(|state| state.refuses) {
            return Err(Status::resource_exhausted(reason));
        }
        let mut response = self.inner().register(request.into_inner()).await?;
        let registered = response.get_mut();
        self.alter(|state| {
            state.registrations += 1;
            state.log.extend(registered.instance.clone());
            let nanos = if state.interval == 0 { 50_000_000 } else { 0 };
            let interval = prost_types::Duration { seconds: state.interval, nanos };
            registered.heartbeat_interval = Some(interval);
        });
        self.pass(|state| state.answers_wait).await;
        let lost = self.alter(|state| {
            let lost = state.answers_lost > 0;
            state.answers_lost = state.answers_lost.saturating_sub(1);
            lost
        });
        if lost { Err(Status::unavailable("")) } else { Ok(response) }
    }

    async fn heartbeat(
        &self,
        request: Request<proto::HeartbeatRequest>,
    ) -> Result<Response<proto::HeartbeatResponse>, Status> {
        let starts = self.alter(|state| {
            state.heartbeats += 1;
            state.starts
        });
        if starts {
            return Err(Status::unavailable("starting"));
        }
        self.inner().heartbeat(request.into_inner()).await
    }

    async fn keep_alive(
        &self,
        request: Request<Streaming<proto::KeepAliveRequest>>,
    ) -> Result<Response<Self::KeepAliveStream>, Status> {
        let open = OpenStream::new(self);
        let responses = request.into_inner().then(move |request| {
            let fake = open.fake.clone();
            async move {
                fake.pass(|state| state.silent).await;
                let lease_ids = request?.lease_ids;
                fake.alter(|state| {
                    state.heartbeats += 1;
                    state.renewed.extend(&lease_ids);
                });
                let renewed = fake.inner().heartbeat(proto::HeartbeatRequest { lease_ids }).await?;
                let unknown_lease_ids = renewed.into_inner().unknown_lease_ids;
                Ok(proto::KeepAliveResponse { unknown_lease_ids })
            }
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn update(
        &self,
        request: Request<proto::UpdateRequest>,
    ) -> Result<Response<proto::UpdateResponse>, Status> {
        let request = request.into_inner();
        let instance = request.instance.clone().unwrap_or_default();
        if instance.weight == Some(u32::MAX) {
            return Err(Status::invalid_argument("too heavy"));
        }
        let paths = request.update_mask.iter().flat_map(|mask| &mask.paths);
        let sets_status = paths.into_iter().any(|path| path == "status");
        let response = self.inner().update(request).await?;
        self.alter(|state| {
            if sets_status {
                state.statuses.push(instance.status());
            }
            state.log.extend(response.get_ref().instance.clone());
        });
        Ok(response)
    }

    async fn deregister(
        &self,
        request: Request<proto::DeregisterRequest>,
    ) -> Result<Response<proto::DeregisterResponse>, Status> {
        self.alter(|state| state.streams_at_leave.push(state.streams_open));
        self.inner().deregister(request.into_inner()).await
    }
}

#[tonic::async_trait]
impl Discovery for Fake {
    type WatchStream = ResponseStream<proto::WatchResponse>;

    async fn resolve(
        &self,
        request: Request<proto::ResolveRequest>,
    ) -> Result<Response<proto::ResolveResponse>, Status> {
        self.discovery().resolve(request.into_inner()).await
    }

    async fn list_services(
        &self,
        request: Request<proto::ListServicesRequest>,
    ) -> Result<Response<proto::ListServicesResponse>, Status> {
        self.discovery().list_services(request.into_inner()).await
    }

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let messages = self.discovery().watch(request.into_inner()).await?.into_inner();
        Ok(Response::new(Box::pin(messages)))
    }
}
