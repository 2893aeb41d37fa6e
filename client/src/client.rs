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
    service::{Service, WatchedServices},
    transport::Dialer,
    view::{ViewDir, Watcher},
};

/// A client of a Waypost registry. Cheap to clone; clones share connections and watches.
///
/// Nothing happens before the first use. What is used then works in background tasks, so it has to
/// be used within a tokio runtime.
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
    /// How connections to the instances of a service are made.
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
    /// Registers an instance, and keeps it registered for as long as the returned guard is held.
    ///
    /// Waits for as long as the registry can't be reached, and says in the log why it does (one `warn`
    /// for an outage, one `info` when it is over): to bound it, wrap it in [`tokio::time::timeout`].
    /// Every attempt registers the same identity: a registration without an id is given one first.
    ///
    /// Cancel safe: where the future is dropped, what may have been registered is deregistered in the
    /// background, best effort. What remains leaves when its TTL has passed. That is left to the TTL,
    /// too, where the answer to an attempt got lost and the id was given: whoever holds it by now may
    /// be another process.
    ///
    /// # Errors
    /// [`RegisterError`] where the registry refuses, or where the runtime ends meanwhile.
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

    /// Wants an instance registered, for as long as the returned guard is held: it is registered as soon
    /// as the registry can be reached, and kept so. Returns at once.
    ///
    /// It never fails: what stands in the way shows in [`Registered::state`] and in the log. A refusal,
    /// too: it is tried again from time to time, and as soon as an update changes what is registered.
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
    /// let registered = client.register_in_background(Registration::new("orders", "10.0.0.7", 8080));
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

    /// A handle to the service `name`, whose instances are followed from now on. A name that no
    /// service can have shows in [`Service::ready`].
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

    /// The same with another way to spread calls than the default one.
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

    /// How the registry answers this client: now, and whenever that changes. Ends when the last clone
    /// of the client is gone, and all that came from it.
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

    /// A channel to the service `name`, for any client that tonic generates. Short for
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
