//! The client: registrations, services and channels that share the connections to one registry.

use std::{sync::Arc, time::Duration};

use futures_util::Stream;
use tokio::sync::watch;

#[cfg(feature = "tonic")]
use crate::channel::BalancedChannel;
#[cfg(feature = "tls")]
use crate::transport::Tls;
use crate::{
    balance::Policy,
    registration::{Heartbeats, RegisterError, Registered, Registration},
    registry::{RegistryLink, RegistryState},
    registry_channel::RegistryChannel,
    service::{Service, WatchedServices},
    transport::Dialer,
    view::{ViewDir, Watcher},
};

/// A client of a Waypost registry. Cheap to clone; clones share connections and watches.
///
/// Connects on first use. Works in background tasks, so it must be used within a tokio runtime.
///
/// ```
/// use waypost_client::{Client, NoInstance, PickContext};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), waypost_client::BuildError> {
/// let client = Client::new("http://127.0.0.1:7510")?;
/// let orders = client.service("orders");
/// assert_eq!(orders.pick(&PickContext::new()).unwrap_err(), NoInstance::NotReady);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) link: Arc<RegistryLink>,
    pub(crate) heartbeats: Heartbeats,
    pub(crate) dialer: Dialer,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Tls>,
    pub(crate) services: Arc<WatchedServices>,
    pub(crate) namespace: String,
    pub(crate) keep_missing_for: Duration,
    pub(crate) view_dir: Option<Arc<ViewDir>>,
}

impl Inner {
    /// Creates the dialer for the instances of a service.
    #[cfg(feature = "tls")]
    fn dialer(&self, service: &str) -> Dialer {
        self.tls
            .as_ref()
            .map_or_else(|| self.dialer.clone(), |tls| tls.secure(&self.dialer, service))
    }

    #[cfg(not(feature = "tls"))]
    fn dialer(&self, _: &str) -> Dialer {
        self.dialer.clone()
    }
}

impl Client {
    /// Registers an instance, and keeps it registered as long as the returned guard is held.
    ///
    /// Waits for as long as the registry can't be reached, and logs the reason (one `warn` for an
    /// outage, one `info` when it is over): to bound it, wrap it in [`tokio::time::timeout`]. Every
    /// attempt registers the same identity: a registration without an id gets one first.
    ///
    /// Cancel safe: if the future is dropped, what may have been registered is deregistered in the
    /// background, best effort. What remains expires after its TTL. So does an instance whose id
    /// the caller chose, after an attempt whose response was lost: another process may hold that id
    /// by now.
    ///
    /// # Errors
    /// [`RegisterError`] if the registry refuses or the runtime ends.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// ```no_run
    /// use waypost_client::{Client, Registration};
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = Client::new("http://127.0.0.1:7510")?;
    /// let registered = client.register(Registration::new("orders", "10.0.0.7", 8080)).await?;
    /// // ... serve ...
    /// registered.deregister().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn register(
        &self,
        mut registration: Registration<impl Stream<Item = bool> + Send + 'static>,
    ) -> Result<Registered, RegisterError> {
        registration.instance.namespace.clone_from(&self.inner.namespace);
        let (link, heartbeats) = (Arc::clone(&self.inner.link), self.inner.heartbeats.clone());
        Registered::register(link, heartbeats, registration).await
    }

    /// Registers an instance in the background: as soon as the registry can be reached, and as long
    /// as the returned guard is held. Returns at once.
    ///
    /// Never fails: [`Registered::state`] and the log show what delays the registration. The client
    /// retries a refused one from time to time, and as soon as an update changes it.
    /// [`Registered::wait_registered`] waits until it is registered.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// ```
    /// use waypost_client::{Client, Registration, RegistrationState};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = Client::new("http://127.0.0.1:7510")?;
    /// let registration = Registration::new("orders", "10.0.0.7", 8080);
    /// let registered = client.register_in_background(registration);
    /// // ... serve, whether the registry is there or not ...
    /// assert_eq!(*registered.state().borrow(), RegistrationState::Pending);
    /// registered.deregister().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn register_in_background(
        &self,
        mut registration: Registration<impl Stream<Item = bool> + Send + 'static>,
    ) -> Registered {
        registration.instance.namespace.clone_from(&self.inner.namespace);
        let (link, heartbeats) = (Arc::clone(&self.inner.link), self.inner.heartbeats.clone());
        Registered::register_in_background(link, heartbeats, registration)
    }

    /// Returns a handle to the service `name`, and starts to watch it. [`Service::ready`] fails if
    /// the name is invalid.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), waypost_client::BuildError> {
    /// # let client = waypost_client::Client::new("http://127.0.0.1:7510")?;
    /// let orders = client.service("orders");
    /// assert!(orders.snapshot().is_none());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn service(&self, name: &str) -> Service {
        let inner = &self.inner;
        Service::new(inner.services.watch(
            &inner.namespace,
            name,
            &inner.dialer(name),
            |published, stop| Watcher {
                link: Arc::clone(&inner.link),
                namespace: inner.namespace.clone(),
                service: name.to_owned(),
                keep_missing_for: inner.keep_missing_for,
                view_dir: inner.view_dir.clone(),
                published,
                stop,
            },
        ))
    }

    /// As [`service`](Self::service), with another policy than the default one.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), waypost_client::BuildError> {
    /// # let client = waypost_client::Client::new("http://127.0.0.1:7510")?;
    /// let orders = client.service_with("orders", waypost_client::Policy::RoundRobin);
    /// # drop(orders);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn service_with(&self, name: &str, policy: Policy) -> Service {
        self.service(name).with_policy(policy)
    }

    /// The state of the connection to the registry, now and whenever it changes. Closed when the
    /// last clone of the client is gone, and all that it created.
    ///
    /// ```
    /// use waypost_client::{Client, RegistryState};
    ///
    /// # fn main() -> Result<(), waypost_client::BuildError> {
    /// let client = Client::new("http://127.0.0.1:7510")?;
    /// assert_eq!(*client.registry_state().borrow(), RegistryState::Idle);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn registry_state(&self) -> watch::Receiver<RegistryState> {
        self.inner.link.state()
    }

    /// Returns a channel to the registry itself, for programs that use its protocol.
    ///
    /// ```
    /// # fn main() -> Result<(), waypost_client::BuildError> {
    /// use waypost_client::{Client, proto::discovery_client::DiscoveryClient};
    ///
    /// let client = Client::new("http://127.0.0.1:7510")?;
    /// let discovery = DiscoveryClient::new(client.registry());
    /// # drop(discovery);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn registry(&self) -> RegistryChannel {
        RegistryChannel::new(Arc::clone(&self.inner.link))
    }

    /// Returns a channel to the service `name`, for clients that tonic generates. Short for
    /// `service(name).channel()`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), waypost_client::BuildError> {
    /// # let client = waypost_client::Client::new("http://127.0.0.1:7510")?;
    /// let channel = client.channel("orders");
    /// assert_eq!(channel.service().name(), "orders");
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tonic")]
    #[must_use]
    pub fn channel(&self, name: &str) -> BalancedChannel {
        self.service(name).channel()
    }
}
