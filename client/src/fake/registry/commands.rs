//! The commands of a test: what happens to instances, the registry and addresses.

use std::{convert::Infallible, time::Duration};

use http::{Request, Response};
use tonic::{Status, body::Body};
use tower::{Service, util::BoxCloneSyncService};

use super::{ADDRESS, Registry};
use crate::{
    fake::state::FakeState,
    proto::Instance,
    registration::{Registration, Update},
};

impl Registry {
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
    /// let Ok(response) = channel.call(http::Request::new(Body::empty())).await;
    /// assert_eq!(response.headers()["grpc-status"], "0");
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
    /// let Ok(response) = channel.call(http::Request::new(Body::empty())).await;
    /// // UNAVAILABLE.
    /// assert_eq!(response.headers()["grpc-status"], "14");
    /// # }
    /// ```
    pub fn stop(&self, address: &str) {
        self.parts.network.close(address);
    }
}
