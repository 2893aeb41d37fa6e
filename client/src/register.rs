//! The registration that is kept alive: the guard that the user holds. What happens behind it is the
//! keeper's; here it is asked, and waited for. It must never register on its own.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::sync::{oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Code;

use crate::{
    backoff::Backoff,
    clock, keeper,
    link::{Link, Missed},
    proto::{self, Instance, registry_client::RegistryClient},
    refusal::{Refusal, Verdict, told},
    registration::{Registration, Update},
    standing::{CloseError, RegisterError, RegistrationState, Shared, UpdateError},
    tasks,
};

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
    /// Registers, however long the registry is away, and keeps it so. Where it is dropped before, what
    /// it may have registered is deregistered.
    pub(crate) async fn begin(
        link: Arc<Link>,
        registration: Registration,
    ) -> Result<Self, RegisterError> {
        let token = CancellationToken::new();
        let stop = token.clone().drop_guard();
        let ((answer, answered), (end, ended)) = (oneshot::channel(), oneshot::channel());
        let stay = keeper::stay(Arc::clone(&link), registration, token, answer);
        tasks::spawn("registration", async move {
            // Nobody may be waiting: then nobody is to be told.
            let _ = end.send(stay.await);
        });
        let shared = answered.await.unwrap_or(Err(RegisterError::Stopped))?;
        Ok(Self { link, shared, ended, stop })
    }

    /// The instance as the registry last said it holds it. Not changed by what an operator does.
    ///
    /// ```no_run
    /// # async fn example(mut registered: waypost_client::Registered)
    /// # -> Result<(), Box<dyn std::error::Error>> {
    /// println!("registered as {}", registered.instance().id);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn instance(&self) -> Arc<Instance> {
        Arc::clone(&self.shared.held.borrow().instance)
    }

    /// The lease that keeps the instance registered. Another one each time that it had to be
    /// registered again.
    ///
    /// ```no_run
    /// # async fn example(mut registered: waypost_client::Registered)
    /// # -> Result<(), Box<dyn std::error::Error>> {
    /// println!("lease {}", registered.lease_id());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn lease_id(&self) -> u64 {
        self.shared.held.borrow().lease_id
    }

    /// How the registration stands, now and as it changes.
    ///
    /// The receiver takes the present state for a change: the first
    /// [`changed`](watch::Receiver::changed) returns at once, so that nothing that happened since the
    /// registration is missed. States that nobody looked at meanwhile are left out.
    ///
    /// ```no_run
    /// # async fn example(mut registered: waypost_client::Registered)
    /// # -> Result<(), Box<dyn std::error::Error>> {
    /// let mut state = registered.state();
    /// tokio::spawn(async move {
    ///     while state.changed().await.is_ok() {
    ///         println!("{:?}", *state.borrow_and_update());
    ///     }
    /// });
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn state(&self) -> watch::Receiver<RegistrationState> {
        let mut state = self.shared.state.subscribe();
        // What changed before the subscription must not go unseen.
        state.mark_changed();
        state
    }

    /// Says whether the instance takes traffic. As [`update`](Self::update).
    ///
    /// # Errors
    /// As [`update`](Self::update).
    ///
    /// ```no_run
    /// # async fn example(mut registered: waypost_client::Registered)
    /// # -> Result<(), Box<dyn std::error::Error>> {
    /// use waypost_client::proto::Status;
    /// registered.set_status(Status::Draining).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_status(&mut self, status: proto::Status) -> Result<(), UpdateError> {
        self.update(Update::new().status(status)).await
    }

    /// Changes the share of traffic; 0 takes no new traffic. As [`update`](Self::update).
    ///
    /// # Errors
    /// As [`update`](Self::update).
    ///
    /// ```no_run
    /// # async fn example(mut registered: waypost_client::Registered)
    /// # -> Result<(), Box<dyn std::error::Error>> {
    /// registered.set_weight(50).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_weight(&mut self, weight: u32) -> Result<(), UpdateError> {
        self.update(Update::new().weight(weight)).await
    }

    /// Replaces all metadata. As [`update`](Self::update).
    ///
    /// # Errors
    /// As [`update`](Self::update).
    ///
    /// ```no_run
    /// # async fn example(mut registered: waypost_client::Registered)
    /// # -> Result<(), Box<dyn std::error::Error>> {
    /// registered.set_metadata([("shard", "8"), ("build", "1377")]).await?;
    /// # Ok(())
    /// # }
    /// ```
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
    /// What the registry refuses leaves the instance as it was. [`UpdateError::Stopped`] where the
    /// registration has ended with its runtime.
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
        // What was refused was something else: it does not answer this update.
        self.shared.state.send_if_modified(|state| {
            let refused = matches!(state, RegistrationState::Refused(_));
            if refused {
                *state = RegistrationState::Lost;
            }
            refused
        });
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
    ) -> Result<proto::UpdateResponse, Missed> {
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
    /// Takes about 10 s at most. Cancel safe: where the future is dropped, it goes on in the
    /// background.
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

/// Repeats `attempt` until the registry answers, one way or the other.
async fn until_reached<T, F>(
    backoff: &mut Backoff,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Refusal>
where
    F: Future<Output = Result<T, Missed>>,
{
    loop {
        let Missed { peer, status } = match attempt().await {
            Ok(answer) => return Ok(answer),
            Err(missed) => missed,
        };
        match Verdict::of(&status) {
            Verdict::Refused(refusal) => return Err(refusal),
            Verdict::Transient { after } => {
                tracing::debug!(peer = &*peer, reason = told(&status), "asking again");
                let delay: Duration = backoff.delay(fastrand::f64(), after);
                clock::sleep(delay).await;
            }
        }
    }
}
