//! The registration that is kept alive: the guard that the user holds. What happens behind it is the
//! keeper's; here it is asked, and waited for. It must never register on its own.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::sync::{oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Status};

use crate::{
    backoff::Backoff,
    clock,
    keeper::{Keeper, grant},
    lease::Lease,
    link::Link,
    proto::{self, Instance, registry_client::RegistryClient},
    refusal::{Refusal, Verdict},
    registration::{Registration, Update},
    tasks,
};

/// How a registration stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistrationState {
    /// The instance is in the registry, as far as is known.
    Registered {
        /// The lease that keeps it there.
        lease_id: u64,
    },
    /// The registry can't be reached; the instance stays registered until its TTL has passed.
    Retrying {
        /// The lease that can't be renewed now.
        lease_id: u64,
    },
    /// The registry does not know the lease any more: the instance is being registered again.
    Lost,
    /// The registry refuses to register the instance again. It is asked again from time to time, and
    /// as soon as an update changes what is registered.
    Refused(Refusal),
    /// The guard was closed or dropped.
    Closed,
}

/// Why an instance was not registered.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// Something about the instance is not as it has to be; the refusal names the fields.
    #[error("the instance is invalid: {0}")]
    Invalid(#[source] Refusal),
    /// The registry holds as much as it may.
    #[error("a limit of the registry is reached: {0}")]
    LimitReached(#[source] Refusal),
    /// The registry does not let this client register.
    #[error("registering is not allowed: {0}")]
    Denied(#[source] Refusal),
    /// The registry refused for another reason.
    #[error("the registry refused: {0}")]
    Refused(#[source] Refusal),
}

impl From<Refusal> for RegisterError {
    fn from(refusal: Refusal) -> Self {
        match refusal.code {
            Code::InvalidArgument => Self::Invalid(refusal),
            Code::ResourceExhausted => Self::LimitReached(refusal),
            Code::PermissionDenied | Code::Unauthenticated => Self::Denied(refusal),
            _ => Self::Refused(refusal),
        }
    }
}

/// Why an instance was not changed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// A new value is not as it has to be; the refusal names the fields.
    #[error("the update is invalid: {0}")]
    Invalid(#[source] Refusal),
    /// The registry refused for another reason.
    #[error("the registry refused: {0}")]
    Refused(#[source] Refusal),
    /// The background task has ended, with the runtime that it ran in.
    #[error("the registration has ended")]
    Stopped,
}

impl From<Refusal> for UpdateError {
    fn from(refusal: Refusal) -> Self {
        match refusal.code {
            Code::InvalidArgument => Self::Invalid(refusal),
            _ => Self::Refused(refusal),
        }
    }
}

/// Why an instance may still be registered after [`Registered::close`]. It leaves by itself when its
/// TTL has passed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseError {
    /// The registry could not be reached in time.
    #[error("the registry could not be reached: {0}")]
    Unreachable(#[source] Status),
    /// The registry refused.
    #[error("the registry refused: {0}")]
    Refused(#[source] Refusal),
    /// The background task has ended, with the runtime that it ran in.
    #[error("the registration has ended")]
    Stopped,
}

/// What the registry holds for a registration.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) lease_id: u64,
    pub(crate) instance: Arc<Instance>,
}

/// What the guard and the keeper share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    /// What is to be registered when the lease is lost.
    pub(crate) desired: watch::Sender<Registration>,
    pub(crate) held: watch::Sender<Held>,
    pub(crate) state: watch::Sender<RegistrationState>,
    /// A lease that the guard found not to live.
    pub(crate) found_lost: watch::Sender<u64>,
}

/// An instance that stays registered for as long as this is held. Made by
/// [`Client::register`](crate::Client::register).
///
/// A background task sends heartbeats. It finds its way back after every outage of the registry, and
/// registers again (with the same id, and with what was last set) where the registry has forgotten
/// the instance. [`state`](Self::state) tells how that goes; nothing of it needs the user's help.
///
/// [`close`](Self::close) deregisters and says how it went. Dropping deregisters in the background,
/// best effort: when the runtime or the process ends first, the registry notices by itself, after
/// `disconnect_grace`.
///
/// ```no_run
/// use waypost_client::{Client, Registration, proto::Status};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::new("http://127.0.0.1:7510")?;
/// let mut registered = client.register(Registration::new("orders", "10.0.0.7", 8080)).await?;
/// println!("registered as {}", registered.instance().id);
/// registered.set_status(Status::Draining).await?;
/// registered.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping it deregisters the instance"]
pub struct Registered {
    link: Arc<Link>,
    shared: Shared,
    ended: oneshot::Receiver<Result<(), CloseError>>,
    stop: DropGuard,
}

impl Registered {
    /// Registers, however long the registry is away, and keeps it so.
    pub(crate) async fn begin(
        link: Arc<Link>,
        mut registration: Registration,
    ) -> Result<Self, RegisterError> {
        let mut backoff = link.backoff();
        let response = until_reached(&mut backoff, || register(&link, &registration)).await?;
        let now = clock::now();
        let (grant, instance) = grant(response);
        // Whoever made the id: registering again is registering the same.
        registration.instance.id.clone_from(&instance.id);
        tracing::info!(
            namespace = instance.namespace,
            service = instance.service,
            instance = instance.id,
            "registered"
        );
        let lease_id = grant.lease_id;
        let shared = Shared {
            desired: watch::Sender::new(registration),
            held: watch::Sender::new(Held { lease_id, instance: Arc::new(instance) }),
            state: watch::Sender::new(RegistrationState::Registered { lease_id }),
            found_lost: watch::Sender::new(0),
        };
        let (stop, (end, ended)) = (CancellationToken::new(), oneshot::channel());
        let lease = Lease::new(grant, now, link.backoff());
        let keeper = Keeper::new(Arc::clone(&link), lease, shared.clone(), stop.clone());
        tasks::spawn("registration", async move {
            // Nobody may be waiting: then nobody is to be told.
            let _ = end.send(keeper.run().await);
        });
        Ok(Self { link, shared, ended, stop: stop.drop_guard() })
    }

    /// The instance as the registry last said it holds it.
    #[must_use]
    pub fn instance(&self) -> Arc<Instance> {
        Arc::clone(&self.shared.held.borrow().instance)
    }

    /// The lease that keeps the instance registered. Another one each time that it had to be
    /// registered again.
    #[must_use]
    pub fn lease_id(&self) -> u64 {
        self.shared.held.borrow().lease_id
    }

    /// How the registration stands, now and as it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<RegistrationState> {
        self.shared.state.subscribe()
    }

    /// Says whether the instance takes traffic. As [`update`](Self::update).
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub async fn set_status(&mut self, status: proto::Status) -> Result<(), UpdateError> {
        self.update(Update::new().status(status)).await
    }

    /// Changes the share of traffic. As [`update`](Self::update).
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub async fn set_weight(&mut self, weight: u32) -> Result<(), UpdateError> {
        self.update(Update::new().weight(weight)).await
    }

    /// Replaces all metadata. As [`update`](Self::update).
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub async fn set_metadata<K: Into<String>, V: Into<String>>(
        &mut self,
        entries: impl IntoIterator<Item = (K, V)>,
    ) -> Result<(), UpdateError> {
        self.update(Update::new().metadata(entries)).await
    }

    /// Changes the instance, and returns when the registry holds it so. What is set is also what is
    /// registered again, should that be needed.
    ///
    /// Waits for as long as the registry can't be reached: to bound it, wrap it in
    /// [`tokio::time::timeout`]. Where the future is dropped, the change may or may not have been
    /// made, and it is made at the latest when the instance is registered again.
    ///
    /// # Errors
    /// What the registry refuses leaves the instance as it was.
    ///
    /// ```no_run
    /// # async fn example(mut registered: waypost_client::Registered)
    /// # -> Result<(), waypost_client::UpdateError> {
    /// use waypost_client::Update;
    /// registered.update(Update::new().weight(50).version("2.4.2")).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn update(&mut self, update: Update) -> Result<(), UpdateError> {
        if update.is_empty() {
            return Ok(());
        }
        let before = self.shared.desired.borrow().clone();
        // First: what is registered again meanwhile is to have it.
        self.shared.desired.send_modify(|desired| update.apply(&mut desired.instance));
        let updated = self.update_registered(&update).await;
        if let Err(UpdateError::Invalid(_) | UpdateError::Refused(_)) = updated {
            self.shared.desired.send_modify(|desired| *desired = before);
        }
        updated
    }

    async fn update_registered(&self, update: &Update) -> Result<(), UpdateError> {
        let mut backoff = self.link.backoff();
        loop {
            let lease_id = self.lease_id();
            let attempt = || self.update_lease(update, lease_id);
            let refusal = match until_reached(&mut backoff, attempt).await {
                Ok(response) => {
                    self.keep(lease_id, response.instance);
                    return Ok(());
                }
                Err(refusal) => refusal,
            };
            if !matches!(refusal.code, Code::NotFound | Code::FailedPrecondition) {
                return Err(refusal.into());
            }
            self.wait_for_another_lease(lease_id).await?;
        }
    }

    async fn update_lease(
        &self,
        update: &Update,
        lease_id: u64,
    ) -> Result<proto::UpdateResponse, Status> {
        let request = update.request(lease_id);
        self.link
            .attempt(
                |connection| async move { RegistryClient::new(connection).update(request).await },
            )
            .await
    }

    /// Remembers what the registry says it holds, unless it was registered again meanwhile.
    fn keep(&self, lease_id: u64, instance: Option<Instance>) {
        let Some(instance) = instance else { return };
        self.shared.held.send_if_modified(|held| {
            let current = held.lease_id == lease_id;
            if current {
                held.instance = Arc::new(instance);
            }
            current
        });
    }

    async fn wait_for_another_lease(&self, lost: u64) -> Result<(), UpdateError> {
        let mut state = self.shared.state.subscribe();
        self.shared.found_lost.send_replace(lost);
        let another = |state: &RegistrationState| match state {
            RegistrationState::Registered { lease_id }
            | RegistrationState::Retrying { lease_id } => *lease_id != lost,
            RegistrationState::Refused(_) | RegistrationState::Closed => true,
            RegistrationState::Lost => false,
        };
        let state = state.wait_for(another).await.map_err(|_| UpdateError::Stopped)?;
        match &*state {
            RegistrationState::Refused(refusal) => Err(refusal.clone().into()),
            RegistrationState::Closed => Err(UpdateError::Stopped),
            _ => Ok(()),
        }
    }

    /// Deregisters, and returns when the registry has said so: from then on nobody is sent here.
    /// Takes about 10 s at most. Where the future is dropped, it goes on in the background.
    ///
    /// # Errors
    /// [`CloseError`]: the instance may still be registered, until its TTL has passed. It is no error
    /// when it was not registered any more.
    ///
    /// ```no_run
    /// # async fn example(registered: waypost_client::Registered)
    /// # -> Result<(), waypost_client::CloseError> {
    /// registered.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn close(self) -> Result<(), CloseError> {
        drop(self.stop);
        self.ended.await.unwrap_or(Err(CloseError::Stopped))
    }
}

/// One attempt to register.
pub(crate) async fn register(
    link: &Link,
    registration: &Registration,
) -> Result<proto::RegisterResponse, Status> {
    let request = registration.request();
    link.attempt(
        |connection| async move { RegistryClient::new(connection).register(request).await },
    )
    .await
}

/// Repeats `attempt` until the registry answers, one way or the other.
async fn until_reached<T, F>(
    backoff: &mut Backoff,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Refusal>
where
    F: Future<Output = Result<T, Status>>,
{
    loop {
        let status = match attempt().await {
            Ok(answer) => return Ok(answer),
            Err(status) => status,
        };
        match Verdict::of(&status) {
            Verdict::Refused(refusal) => return Err(refusal),
            Verdict::Transient { after } => {
                tracing::debug!(code = ?status.code(), reason = status.message(), "asking again");
                let delay: Duration = backoff.delay(fastrand::f64(), after);
                clock::sleep(delay).await;
            }
        }
    }
}
