//! The handle to a registry in memory: the commands of a test, and reads of the state. Never does
//! what no real registry could do.

use std::{convert::Infallible, fmt, sync::Arc, time::Duration};

use http::{Request, Response, Uri};
use tonic::{Status, body::Body};
use tower::{Service, service_fn, util::BoxCloneSyncService};

use super::{
    handlers::Handlers,
    network::{AddressService, Network},
    script::Script,
    shared::SharedState,
    state::FakeState,
};
use crate::{
    builder::Builder,
    client::Client,
    proto::{Instance, discovery_server::DiscoveryServer, registry_server::RegistryServer},
    registration::{Registration, Update},
};

/// The registry's address for its clients. The domain `invalid` is reserved (RFC 2606).
const ADDRESS: &str = "registry.invalid:7510";

/// A registry in memory, for tests: real clients register with it and watch it, and a test controls
/// it. Cheap to clone; clones share the registry. See the [module](super).
///
/// A command takes effect before its method returns; clients receive it once they run
/// ([`Changes`](crate::Changes) reports when).
///
/// ```
/// use waypost_client::{Registration, fake};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = fake::Registry::new();
/// registry.join(Registration::new("orders", "10.0.0.1", 8080).id("a"));
///
/// let orders = registry.client().service("orders");
/// orders.ready().await?;
/// assert!(orders.snapshot().is_some_and(|snapshot| snapshot.instance("a").is_some()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Registry {
    parts: Arc<RegistryParts>,
    namespace: String,
}

#[derive(Debug)]
struct RegistryParts {
    state: Arc<SharedState>,
    network: Arc<Network>,
    script: Arc<Script>,
}

impl Registry {
    /// Creates an empty registry that is reachable.
    ///
    /// ```
    /// use waypost_client::fake;
    ///
    /// let registry = fake::Registry::new();
    /// assert!(registry.instances("orders").is_empty());
    /// ```
    #[must_use]
    pub fn new() -> Self {
        let (state, network, script) = (Arc::default(), Arc::new(Network::new()), Arc::default());
        let registry = Self {
            parts: Arc::new(RegistryParts { state, network, script }),
            namespace: String::new(),
        };
        registry.open();
        registry
    }

    /// Returns the same registry, with commands and clients in another namespace than `default`.
    ///
    /// ```
    /// use waypost_client::{Registration, fake};
    ///
    /// let registry = fake::Registry::new();
    /// let shop = registry.in_namespace("shop");
    /// shop.join(Registration::new("orders", "10.0.0.1", 8080));
    /// assert_eq!(shop.instances("orders").len(), 1);
    /// assert!(registry.instances("orders").is_empty());
    /// ```
    #[must_use]
    pub fn in_namespace(&self, namespace: impl Into<String>) -> Self {
        Self { parts: Arc::clone(&self.parts), namespace: namespace.into() }
    }

    /// Creates a client of this registry, with all defaults.
    ///
    /// ```
    /// use waypost_client::{Registration, fake};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let registry = fake::Registry::new();
    /// let client = registry.client();
    /// let registered = client.register(Registration::new("orders", "10.0.0.1", 8080)).await?;
    /// assert_eq!(registry.instances("orders").len(), 1);
    /// registered.deregister().await?;
    /// assert!(registry.instances("orders").is_empty());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn client(&self) -> Client {
        self.builder().build().expect("the address is one of a registry")
    }

    /// Starts a builder for a client of this registry. Its connector and registry are set; another
    /// [`connector`](Builder::connector) connects it elsewhere.
    ///
    /// ```
    /// use std::time::Duration;
    /// use waypost_client::fake;
    ///
    /// # fn main() -> Result<(), waypost_client::BuildError> {
    /// let client = fake::Registry::new().builder().keep_missing_for(Duration::ZERO).build()?;
    /// # drop(client);
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(&self) -> Builder {
        let network = Arc::clone(&self.parts.network);
        let connector = service_fn(move |uri: Uri| {
            let network = Arc::clone(&network);
            async move { network.connect(uri).await }
        });
        Client::builder()
            .registry(format!("http://{ADDRESS}"))
            .namespace(self.namespace.clone())
            .connector(connector)
    }

    /// Registers an instance, as a program would, until the test removes it. Returns it as stored.
    ///
    /// An instance with the same id is taken over, and its lease is fenced.
    ///
    /// # Panics
    /// If a registry would refuse it, for example for port 0.
    ///
    /// ```
    /// use waypost_client::{Registration, fake, proto::Status};
    ///
    /// let registry = fake::Registry::new();
    /// let instance = registry.join(Registration::new("orders", "10.0.0.1", 8080).id("a"));
    /// assert_eq!((instance.status(), instance.weight), (Status::Up, Some(100)));
    /// ```
    pub fn join(&self, mut registration: Registration) -> Instance {
        registration.instance.namespace.clone_from(&self.namespace);
        let request = registration.request();
        let wall = self.parts.state.wall();
        let joined = self.parts.state.change(|state| state.register(&request, wall));
        joined.expect("a registration that a registry takes").instance.unwrap_or_default()
    }

    /// Removes an instance, as its deregistration would. Returns its last state; `None` if there is
    /// none with this id.
    ///
    /// ```
    /// use waypost_client::{Registration, fake};
    ///
    /// let registry = fake::Registry::new();
    /// registry.join(Registration::new("orders", "10.0.0.1", 8080).id("a"));
    /// assert!(registry.leave("orders", "a").is_some());
    /// assert!(registry.leave("orders", "a").is_none());
    /// ```
    pub fn leave(&self, service: &str, id: &str) -> Option<Instance> {
        let (namespace, wall) = (&self.namespace, self.parts.state.wall());
        self.parts.state.change(|state| state.leave(namespace, service, id, wall))
    }

    /// Expires the lease of an instance, although its heartbeats may go on: they renew an unknown
    /// lease from now on. Returns the instance's last state; `None` if there is none with this id.
    ///
    /// ```
    /// use waypost_client::{Registration, fake};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let registry = fake::Registry::new();
    /// let registration = Registration::new("orders", "10.0.0.1", 8080).id("a");
    /// let registered = registry.client().register(registration).await?;
    /// let lease = registered.lease_id();
    ///
    /// assert!(registry.expire("orders", "a").is_some());
    /// // The next heartbeat finds out, and it registers again.
    /// registry.until(|registry| !registry.instances("orders").is_empty()).await;
    /// # let mut state = registered.state();
    /// # while registered.lease_id() == lease { state.changed().await?; }
    /// # Ok(())
    /// # }
    /// ```
    pub fn expire(&self, service: &str, id: &str) -> Option<Instance> {
        let (namespace, wall) = (&self.namespace, self.parts.state.wall());
        self.parts.state.change(|state| state.expire(namespace, service, id, wall))
    }

    /// Updates an instance, as an operator would. Returns it as stored.
    ///
    /// # Panics
    /// If a registry would refuse it, for example for an unknown id.
    ///
    /// ```
    /// use waypost_client::{Registration, Update, fake, proto::Status};
    ///
    /// let registry = fake::Registry::new();
    /// registry.join(Registration::new("orders", "10.0.0.1", 8080).id("a"));
    /// let update = Update::new().status(Status::Draining);
    /// assert_eq!(registry.update("orders", "a", &update).status(), Status::Draining);
    /// ```
    pub fn update(&self, service: &str, id: &str, update: &Update) -> Instance {
        let mut request = update.request(0);
        request.namespace.clone_from(&self.namespace);
        (request.service, request.id) = (service.to_owned(), id.to_owned());
        let wall = self.parts.state.wall();
        let updated = self.parts.state.change(|state| state.update(&request, wall));
        updated.expect("an update that a registry takes").instance.unwrap_or_default()
    }

    /// Makes the registry unreachable: breaks all connections and refuses new ones, until it is
    /// [restored](Self::restore). Its data stays, and no lease expires.
    ///
    /// ```
    /// use waypost_client::{PickContext, Registration, fake};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let registry = fake::Registry::new();
    /// registry.join(Registration::new("orders", "10.0.0.1", 8080).id("a"));
    /// let orders = registry.client().service("orders");
    /// orders.ready().await?;
    ///
    /// registry.outage();
    /// registry.until(|registry| registry.watchers() == 0).await;
    /// registry.leave("orders", "a");
    /// assert!(orders.pick(&PickContext::new()).is_ok(), "what is known stays known");
    ///
    /// registry.restore();
    /// let mut changes = orders.changes();
    /// while !changes.next().await.is_some_and(|snapshot| snapshot.is_empty()) {}
    /// # Ok(())
    /// # }
    /// ```
    pub fn outage(&self) {
        self.parts.network.close(ADDRESS);
    }

    /// Restores the registry: it is reachable, accepts requests and responds at once.
    ///
    /// ```
    /// use std::time::Duration;
    /// use waypost_client::fake;
    ///
    /// let registry = fake::Registry::new();
    /// registry.delay(Duration::from_secs(3));
    /// registry.restore();
    /// ```
    pub fn restore(&self) {
        self.parts.script.reset();
        if self.parts.network.is_closed(ADDRESS) {
            self.open();
        }
    }

    /// Restarts the registry without its data: breaks all connections and starts a new history,
    /// without any instance or lease.
    ///
    /// ```
    /// use waypost_client::{Registration, fake};
    ///
    /// let registry = fake::Registry::new();
    /// registry.join(Registration::new("orders", "10.0.0.1", 8080));
    /// registry.forget();
    /// assert!(registry.instances("orders").is_empty());
    /// ```
    pub fn forget(&self) {
        let away = self.parts.network.is_closed(ADDRESS);
        self.parts.network.close(ADDRESS);
        self.parts.state.change(FakeState::forget);
        if !away {
            self.open();
        }
    }

    /// Delays responses until the registry is [restored](Self::restore). Requests take effect at
    /// once. Of a stream, only the response's head is late.
    ///
    /// ```
    /// use std::time::Duration;
    /// use waypost_client::{Registration, fake};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let registry = fake::Registry::new();
    /// registry.delay(Duration::from_secs(3));
    /// let began = tokio::time::Instant::now();
    /// let registration = Registration::new("orders", "10.0.0.1", 8080);
    /// let registered = registry.client().register(registration).await?;
    /// assert!(began.elapsed() >= Duration::from_secs(3));
    /// # Ok(())
    /// # }
    /// ```
    pub fn delay(&self, delay: Duration) {
        self.parts.script.delay(delay);
    }

    /// Responds to requests with `refusal`, without effect, until the registry is
    /// [restored](Self::restore). Open streams go on.
    ///
    /// ```
    /// use tonic::Status;
    /// use waypost_client::{RegisterError, Registration, fake};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let registry = fake::Registry::new();
    /// registry.refuse(Status::resource_exhausted("full"));
    /// let refused = registry.client().register(Registration::new("orders", "10.0.0.1", 80)).await;
    /// assert!(matches!(refused, Err(RegisterError::LimitReached(_))));
    /// # }
    /// ```
    pub fn refuse(&self, refusal: Status) {
        self.parts.script.refuse(refusal);
    }

    /// Serves the calls of this registry's clients to `address` (`host:port`, an IPv6 address in
    /// brackets) in this process, over pipes instead of a network. Ends an earlier service there.
    /// Addresses without a service are reached over TCP.
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use tonic::{Status, body::Body, client::GrpcService};
    /// use waypost_client::{Registration, fake};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let registry = fake::Registry::new();
    /// // Any server that tonic generates, or several in `tonic::service::Routes`; or by hand:
    /// let fine = tower::service_fn(|_: http::Request<Body>| async {
    ///     Ok::<_, Infallible>(Status::ok("").into_http())
    /// });
    /// registry.serve("10.0.0.1:8080", fine);
    /// registry.join(Registration::new("orders", "10.0.0.1", 8080));
    ///
    /// let mut channel = registry.client().channel("orders");
    /// let Ok(answer) = channel.call(http::Request::new(Body::empty())).await;
    /// assert_eq!(answer.headers()["grpc-status"], "0");
    /// # }
    /// ```
    pub fn serve<S>(&self, address: &str, service: S)
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        S: Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        self.parts.network.open(address, BoxCloneSyncService::new(service));
    }

    /// Stops the service at `address`, as if its process was killed: connections break, and new
    /// ones are refused, until something is [served](Self::serve) there. The registry is not
    /// notified.
    ///
    /// ```
    /// use tonic::{body::Body, client::GrpcService};
    /// use waypost_client::{Registration, fake};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let registry = fake::Registry::new();
    /// registry.join(Registration::new("orders", "10.0.0.1", 8080));
    /// registry.stop("10.0.0.1:8080");
    ///
    /// let mut channel = registry.client().channel("orders");
    /// let Ok(answer) = channel.call(http::Request::new(Body::empty())).await;
    /// // UNAVAILABLE.
    /// assert_eq!(answer.headers()["grpc-status"], "14");
    /// # }
    /// ```
    pub fn stop(&self, address: &str) {
        self.parts.network.close(address);
    }

    /// Returns the instances of a service, with any status, in order of their ids.
    ///
    /// ```
    /// assert!(waypost_client::fake::Registry::new().instances("orders").is_empty());
    /// ```
    #[must_use]
    pub fn instances(&self, service: &str) -> Vec<Instance> {
        self.parts.state.read(|state| state.instances(&self.namespace, service))
    }

    /// Returns the number of heartbeats from all clients, for known and unknown leases.
    ///
    /// ```
    /// assert_eq!(waypost_client::fake::Registry::new().heartbeats(), 0);
    /// ```
    #[must_use]
    pub fn heartbeats(&self) -> u64 {
        self.parts.state.read(|state| state.heartbeats)
    }

    /// Returns the number of open watches of all clients.
    ///
    /// ```
    /// assert_eq!(waypost_client::fake::Registry::new().watchers(), 0);
    /// ```
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.parts.state.read(|state| state.watchers)
    }

    /// Waits until the state meets the condition. Cancel safe.
    ///
    /// May wait forever: wrap it in [`tokio::time::timeout`], which takes no time while time is
    /// paused.
    ///
    /// ```
    /// use waypost_client::{Registration, fake};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let registry = fake::Registry::new();
    /// let registration = Registration::new("orders", "10.0.0.1", 8080);
    /// let registered = registry.client().register(registration).await?;
    /// registry.until(|registry| registry.heartbeats() > 2).await;
    ///
    /// // Deregisters in the background.
    /// drop(registered);
    /// registry.until(|registry| registry.instances("orders").is_empty()).await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn until(&self, holds: impl Fn(&Self) -> bool) {
        let mut changed = self.parts.state.subscribe();
        loop {
            // Before the check: a change from here on signals again.
            changed.mark_unchanged();
            if holds(self) {
                return;
            }
            // Never an error: the sender is held here.
            let _ = changed.changed().await;
        }
    }

    /// Returns the registry's gRPC services, for tests that use the protocol: a channel for the
    /// stubs in [`proto`](crate::proto). Subject to [delays](Self::delay) and
    /// [refusals](Self::refuse), not to [outages](Self::outage).
    ///
    /// ```
    /// use waypost_client::{fake, proto::{ListServicesRequest, discovery_client::DiscoveryClient}};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tonic::Status> {
    /// let registry = fake::Registry::new();
    /// let mut discovery = DiscoveryClient::new(registry.grpc());
    /// let listed = discovery.list_services(ListServicesRequest::default()).await?;
    /// assert!(listed.into_inner().services.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn grpc(&self) -> BoxCloneSyncService<Request<Body>, Response<Body>, Infallible> {
        let handlers = Handlers { shared: Arc::clone(&self.parts.state) };
        grpc_service(&handlers, Arc::clone(&self.parts.script))
    }

    /// Makes the registry reachable.
    fn open(&self) {
        self.parts.network.open(ADDRESS, self.grpc());
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Registry {
    /// Omits the instances, whose metadata must not get into logs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Registry").finish_non_exhaustive()
    }
}

/// Combines the methods of a registry with the behaviour that the test set.
fn grpc_service(handlers: &Handlers, script: Arc<Script>) -> AddressService {
    let registry = RegistryServer::new(handlers.clone());
    let discovery = DiscoveryServer::new(handlers.clone());
    BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
        let (mut registry, mut discovery) = (registry.clone(), discovery.clone());
        let script = Arc::clone(&script);
        async move {
            let answer = match script.refusal() {
                Some(refusal) => refusal,
                None if request.uri().path().starts_with("/waypost.v1.Discovery/") => {
                    discovery.call(request).await?
                }
                None => registry.call(request).await?,
            };
            script.wait_delay().await;
            Ok(answer)
        }
    }))
}
