//! A registry for tests of the client: everything in memory, killed and started at will. Each runs
//! on a runtime of its own, so that a kill ends its connections too, without a goodbye.

// Each suite uses a part of it.
#![allow(dead_code)]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{Stream, StreamExt};
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::watch,
};
use tokio_stream::wrappers::{TcpListenerStream, WatchStream};
use tonic::{Code, Request, Response, Status, Streaming, transport::server::Router};
use tonic_types::{ErrorDetails, StatusExt};
use waypost_client::proto::{
    self, Change, ChangeKind, Cursor, Instance,
    discovery_server::{Discovery, DiscoveryServer},
    registry_server::{Registry, RegistryServer},
    watch_response::Event,
};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Names of servers and where they listen now. A server that is started again gets another port, and
/// is found all the same: a freed port may be anyone's.
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

    /// How many connections were asked for.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Waits until so many more connections were asked for.
    pub async fn until_asked(&self, more: usize) {
        let enough = self.connections() + more;
        while self.connections() < enough {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Connects to a name; refuses where nothing is served under it. Under `nowhere` nothing ever
    /// answers, and `far` takes its time.
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
        // Waited for, so that the dead answer nothing any more: elsewhere, as a task must not wait.
        let killed = std::thread::spawn(|| runtime.shutdown_timeout(Duration::from_secs(5)));
        killed.join().unwrap();
    }
}

/// What a registry holds.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub history: String,
    pub revision: u64,
    pub instances: BTreeMap<String, Instance>,
    /// Lease to id.
    pub leases: BTreeMap<u64, String>,
    pub log: Vec<Change>,
    /// How many heartbeats came.
    pub heartbeats: u64,
    /// How many registrations came.
    pub registrations: u64,
    /// How many answers to registrations get lost from now on.
    pub answers_lost: u64,
    /// Whether answers to registrations have to wait.
    pub answers_wait: bool,
    /// Why registrations are refused.
    pub refuses: Option<&'static str>,
    /// Whether unary heartbeats are put off, as all is by a registry that is not ready yet.
    pub starts: bool,
    /// The heartbeat interval of later registrations, in seconds; 50 ms where it is 0.
    pub interval: i64,
    /// How many keep-alive streams were opened.
    pub streams: u64,
    /// How many of them are open.
    pub streams_open: u64,
    /// The leases that came over them.
    pub renewed: BTreeSet<u64>,
    /// Whether heartbeats are not answered.
    pub silent: bool,
    /// The statuses that updates told.
    pub statuses: Vec<proto::Status>,
    /// How many streams were open at each deregistration.
    pub streams_at_leave: Vec<u64>,
    next_lease: u64,
}

impl State {
    fn cursor(&self) -> Option<Cursor> {
        Some(Cursor { history_id: self.history.clone(), revision: self.revision })
    }

    fn change(&mut self, kind: ChangeKind, mut instance: Instance) -> Instance {
        self.revision += 1;
        instance.modified_revision = self.revision;
        if kind == ChangeKind::Added {
            instance.created_revision = self.revision;
        }
        let change = Change {
            kind: kind.into(),
            instance: Some(instance.clone()),
            reason: 0,
            revision: self.revision,
        };
        self.log.push(change);
        if kind == ChangeKind::Removed {
            self.instances.remove(&instance.id);
        } else {
            self.instances.insert(instance.id.clone(), instance.clone());
        }
        instance
    }

    fn register(&mut self, mut instance: Instance) -> proto::RegisterResponse {
        self.registrations += 1;
        self.next_lease += 1;
        let lease_id = self.next_lease;
        if instance.id.is_empty() {
            instance.id = format!("made-{lease_id}");
        }
        if instance.status == 0 {
            instance.set_status(proto::Status::Up);
        }
        instance.weight.get_or_insert(100);
        self.leases.retain(|_, id| *id != instance.id);
        self.leases.insert(lease_id, instance.id.clone());
        let kind = match self.instances.get(&instance.id) {
            Some(known) => {
                instance.created_revision = known.created_revision;
                ChangeKind::Updated
            }
            None => ChangeKind::Added,
        };
        let instance = self.change(kind, instance);
        let nanos = if self.interval == 0 { 50_000_000 } else { 0 };
        proto::RegisterResponse {
            instance: Some(instance),
            lease_id,
            ttl: None,
            heartbeat_interval: Some(prost_types::Duration { seconds: self.interval, nanos }),
            cursor: self.cursor(),
        }
    }

    fn leased(&self, lease_id: u64) -> Result<Instance, Status> {
        let id = self.leases.get(&lease_id).ok_or_else(|| Status::failed_precondition("fenced"))?;
        Ok(self.instances[id].clone())
    }
}

/// The registry's handlers and a look into it.
#[derive(Clone)]
pub struct Fake {
    state: Arc<Mutex<State>>,
    revision: watch::Sender<u64>,
}

impl Fake {
    /// An empty registry with a history of this name.
    pub fn new(history: &str) -> Self {
        let state = State { history: history.into(), ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), revision: watch::Sender::new(0) }
    }

    pub fn serve(&self, network: &Network, name: &str) -> Process {
        let router = tonic::transport::Server::builder()
            .add_service(RegistryServer::new(self.clone()))
            .add_service(DiscoveryServer::new(self.clone()));
        network.start(name, router)
    }

    pub fn state(&self) -> State {
        self.state.lock().unwrap().clone()
    }

    /// Changes the registry behind its clients' backs, and wakes its watchers.
    pub fn alter<T>(&self, alter: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap();
        let result = alter(&mut state);
        self.revision.send_replace(state.revision);
        result
    }

    /// Registers an instance that needs no heartbeats.
    pub fn place(&self, service: &str, id: &str, host: &str) {
        self.alter(|state| {
            state.register(Instance {
                service: service.into(),
                id: id.into(),
                host: host.into(),
                port: 80,
                ..Instance::default()
            })
        });
    }

    /// Takes an instance out again.
    pub fn displace(&self, id: &str) {
        self.alter(|state| {
            let gone = state.instances[id].clone();
            state.change(ChangeKind::Removed, gone)
        });
    }

    /// How many watches are open.
    pub fn watches(&self) -> usize {
        self.revision.receiver_count()
    }

    /// Waits until the registry is as `holds` says.
    pub async fn until(&self, holds: impl Fn(&State) -> bool) {
        let waiting = self.until_told(holds);
        tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("the registry's state");
    }

    /// The same, for as long as it takes.
    async fn until_told(&self, holds: impl Fn(&State) -> bool) {
        while !holds(&self.state.lock().unwrap()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
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
    type KeepAliveStream = Answers<proto::KeepAliveResponse>;

    async fn register(
        &self,
        request: Request<proto::RegisterRequest>,
    ) -> Result<Response<proto::RegisterResponse>, Status> {
        let instance = request.into_inner().instance.unwrap_or_default();
        if instance.service.is_empty() {
            let details = ErrorDetails::with_bad_request_violation("instance.service", "required");
            return Err(Status::with_error_details(Code::InvalidArgument, "1 bad field", details));
        }
        let refuses = self.state.lock().unwrap().refuses;
        if let Some(reason) = refuses {
            return Err(Status::resource_exhausted(reason));
        }
        let response = self.alter(|state| state.register(instance));
        self.until(|state| !state.answers_wait).await;
        let lost = self.alter(|state| {
            let lost = state.answers_lost > 0;
            state.answers_lost = state.answers_lost.saturating_sub(1);
            lost
        });
        if lost { Err(Status::unavailable("")) } else { Ok(Response::new(response)) }
    }

    async fn heartbeat(
        &self,
        request: Request<proto::HeartbeatRequest>,
    ) -> Result<Response<proto::HeartbeatResponse>, Status> {
        let lease_ids = request.into_inner().lease_ids;
        let mut state = self.state.lock().unwrap();
        state.heartbeats += 1;
        if state.starts {
            return Err(Status::unavailable("starting"));
        }
        let unknown = |lease: &u64| !state.leases.contains_key(lease);
        let unknown_lease_ids = lease_ids.into_iter().filter(unknown).collect();
        Ok(Response::new(proto::HeartbeatResponse { unknown_lease_ids }))
    }

    async fn keep_alive(
        &self,
        request: Request<Streaming<proto::KeepAliveRequest>>,
    ) -> Result<Response<Self::KeepAliveStream>, Status> {
        let open = OpenStream::new(self);
        let answers = request.into_inner().then(move |request| {
            let fake = open.fake.clone();
            async move {
                fake.until_told(|state| !state.silent).await;
                let lease_ids = request?.lease_ids;
                let mut state = fake.state.lock().unwrap();
                state.heartbeats += 1;
                state.renewed.extend(&lease_ids);
                let unknown = |lease: &u64| !state.leases.contains_key(lease);
                let unknown_lease_ids = lease_ids.into_iter().filter(unknown).collect();
                Ok(proto::KeepAliveResponse { unknown_lease_ids })
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn update(
        &self,
        request: Request<proto::UpdateRequest>,
    ) -> Result<Response<proto::UpdateResponse>, Status> {
        let request = request.into_inner();
        let new = request.instance.unwrap_or_default();
        let paths = request.update_mask.unwrap_or_default().paths;
        self.alter(|state| {
            let mut instance = state.leased(request.lease_id)?;
            for path in &paths {
                match path.as_str() {
                    "status" => {
                        instance.status = new.status;
                        state.statuses.push(new.status());
                    }
                    "weight" if new.weight == Some(u32::MAX) => {
                        return Err(Status::invalid_argument("too heavy"));
                    }
                    "weight" => instance.weight = new.weight,
                    "metadata" => instance.metadata = new.metadata.clone(),
                    other => return Err(Status::invalid_argument(other.to_owned())),
                }
            }
            let instance = Some(state.change(ChangeKind::Updated, instance));
            Ok(Response::new(proto::UpdateResponse { instance, cursor: state.cursor() }))
        })
    }

    async fn deregister(
        &self,
        request: Request<proto::DeregisterRequest>,
    ) -> Result<Response<proto::DeregisterResponse>, Status> {
        let proto::DeregisterRequest { lease_id, id, .. } = request.into_inner();
        self.alter(|state| {
            state.streams_at_leave.push(state.streams_open);
            let instance = match state.instances.get(&id) {
                Some(instance) if lease_id == 0 => instance.clone(),
                _ => state.leased(lease_id)?,
            };
            state.leases.retain(|_, id| *id != instance.id);
            state.change(ChangeKind::Removed, instance);
            Ok(Response::new(proto::DeregisterResponse { cursor: state.cursor() }))
        })
    }
}

#[tonic::async_trait]
impl Discovery for Fake {
    type WatchStream = Answers<proto::WatchResponse>;

    async fn resolve(
        &self,
        request: Request<proto::ResolveRequest>,
    ) -> Result<Response<proto::ResolveResponse>, Status> {
        let service = request.into_inner().service;
        let state = self.state.lock().unwrap();
        let of_service = |instance: &&Instance| instance.service == service;
        let instances = state.instances.values().filter(of_service).cloned().collect();
        let cursor = state.cursor();
        Ok(Response::new(proto::ResolveResponse { instances, cursor, ..Default::default() }))
    }

    async fn list_services(
        &self,
        _: Request<proto::ListServicesRequest>,
    ) -> Result<Response<proto::ListServicesResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let service = request.services.concat();
        if service.contains(' ') {
            return Err(Status::invalid_argument("no name"));
        }
        let fake = self.clone();
        let mut known = request.resume.filter(|resume| resume.history_id == fake.state().history);
        let told = WatchStream::new(self.revision.subscribe()).map(move |_| {
            let state = fake.state.lock().unwrap();
            let event = tell(&state, &service, known.as_ref());
            known = state.cursor();
            Ok(proto::WatchResponse { cursor: state.cursor(), event: Some(event) })
        });
        Ok(Response::new(Box::pin(told)))
    }
}

/// What comes after `known`.
fn tell(state: &State, service: &str, known: Option<&Cursor>) -> Event {
    let Some(known) = known else {
        let of_service = |instance: &&Instance| instance.service == service;
        let instances = state.instances.values().filter(of_service).cloned().collect();
        return Event::Snapshot(proto::Snapshot { instances, last: true });
    };
    let news = |change: &&Change| {
        let of_service = change.instance.as_ref().is_some_and(|of| of.service == service);
        of_service && change.revision > known.revision
    };
    let changes: Vec<Change> = state.log.iter().filter(news).cloned().collect();
    if changes.is_empty() {
        Event::Idle(proto::Idle {})
    } else {
        Event::Changes(proto::Changes { changes })
    }
}
