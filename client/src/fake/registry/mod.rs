//! The handle to a registry in memory: its clients, the `commands` of a test, and reads of the
//! state. Never does what no real registry could do.

mod commands;

use std::{convert::Infallible, fmt, sync::Arc};

use http::{Request, Response, Uri};
use tonic::body::Body;
use tower::{Service as _, service_fn, util::BoxCloneSyncService};

use super::{
    handlers::Handlers,
    network::{AddressService, Network},
    script::Script,
    shared::SharedState,
};
use crate::{
    builder::Builder,
    client::Client,
    proto::{Instance, discovery_server::DiscoveryServer, registry_server::RegistryServer},
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
            let response = match script.refusal() {
                Some(refusal) => refusal,
                None if request.uri().path().starts_with("/waypost.v1.Discovery/") => {
                    discovery.call(request).await?
                }
                None => registry.call(request).await?,
            };
            script.wait_delay().await;
            Ok(response)
        }
    }))
}
