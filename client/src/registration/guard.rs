//! The guard of a registration, which the user holds. Sends requests to the registration's task,
//! which does the rest.

use std::sync::Arc;

use futures_util::Stream;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    heartbeats::Heartbeats,
    readiness::follow,
    spec::{Registration, Update},
    state::{DeregisterError, RegisterError, RegistrationState, SharedRegistration, UpdateError},
    task::RegistrationTask,
    updater::Updater,
};
use crate::{
    proto::{self, Instance},
    registry::RegistryLink,
    runtime::tasks,
};

/// An instance that stays registered as long as this guard is held. Created by
/// [`Client::register_in_background`](crate::Client::register_in_background), which returns at
/// once, and by [`Client::register`](crate::Client::register), which waits for the registry's first
/// response.
///
/// A background task sends heartbeats. It reconnects after every outage of the registry, and
/// registers again (with the same id and the latest values) if the registry has lost the instance.
/// [`state`](Self::state) shows the progress; the user need not act on it.
///
/// [`deregister`](Self::deregister) deregisters and returns the result. Dropping the guard
/// deregisters in the background, best effort: if the runtime or the process ends first, the
/// registry removes the instance after `disconnect_grace`.
///
/// ```no_run
/// use waypost_client::{Client, Registration, proto::Status};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::new("http://127.0.0.1:7510")?;
/// let mut registered = client.register(Registration::new("orders", "10.0.0.7", 8080)).await?;
/// println!("registered as {}", registered.instance().id);
/// registered.set_status(Status::Draining).await?;
/// registered.deregister().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping it deregisters the instance"]
pub struct Registered {
    updater: Updater,
    outcome: oneshot::Receiver<Result<(), DeregisterError>>,
    /// Cancelled when the status should not follow readiness any more.
    follow_stop: CancellationToken,
    /// Closed when the status does not follow readiness any more.
    follow_ended: oneshot::Receiver<()>,
    stop: DropGuard,
}

impl Registered {
    /// Registers, and waits however long the registry is unreachable. If the future is dropped,
    /// deregisters what it may have registered.
    pub(crate) async fn register(
        link: Arc<RegistryLink>,
        heartbeats: Heartbeats,
        registration: Registration<impl Stream<Item = bool> + Send + 'static>,
    ) -> Result<Self, RegisterError> {
        let (first_response, response) = oneshot::channel();
        let registered = Self::spawn(link, heartbeats, registration, Some(first_response));
        response.await.unwrap_or(Err(RegisterError::Stopped))?;
        Ok(registered)
    }

    /// Registers in the background.
    pub(crate) fn register_in_background(
        link: Arc<RegistryLink>,
        heartbeats: Heartbeats,
        registration: Registration<impl Stream<Item = bool> + Send + 'static>,
    ) -> Self {
        Self::spawn(link, heartbeats, registration, None)
    }

    fn spawn(
        link: Arc<RegistryLink>,
        heartbeats: Heartbeats,
        registration: Registration<impl Stream<Item = bool> + Send + 'static>,
        first_response: Option<oneshot::Sender<Result<(), RegisterError>>>,
    ) -> Self {
        let (registration, ready) = registration.split();
        let token = CancellationToken::new();
        let follow_stop = token.child_token();
        let stop = token.clone().drop_guard();
        let (outcome_sender, outcome) = oneshot::channel();
        let task = RegistrationTask::new(
            Arc::clone(&link),
            heartbeats,
            registration,
            first_response,
            token,
        );
        let updater = Updater { link, shared: task.shared() };
        let (follow_end, follow_ended) = oneshot::channel();
        let follow = follow(updater.clone(), ready, follow_stop.clone());
        tasks::spawn("readiness", async move {
            let _end = follow_end;
            follow.await;
        });
        tasks::spawn("registration", async move {
            // The guard may be gone.
            let _ = outcome_sender.send(task.run().await);
        });
        Self { updater, outcome, follow_stop, follow_ended, stop }
    }

    /// Returns when no change of the status is on its way to the registry any more.
    pub(crate) async fn stop_following_readiness(&mut self) {
        self.follow_stop.cancel();
        // The end of the task closes it.
        let _ = (&mut self.follow_ended).await;
    }

    fn shared(&self) -> &SharedRegistration {
        &self.updater.shared
    }

    /// Waits until the instance is registered; returns at once if it is.
    ///
    /// Waits for as long as the registry can't be reached: to bound it, wrap it in
    /// [`tokio::time::timeout`]. Cancel safe.
    ///
    /// # Errors
    /// [`RegisterError`] if the registry refuses at present. The client still retries from time to
    /// time, and as soon as an update changes the registration. [`RegisterError::Stopped`] if the
    /// registration has ended with its runtime.
    ///
    /// ```no_run
    /// # async fn example(client: waypost_client::Client)
    /// # -> Result<(), waypost_client::RegisterError> {
    /// use waypost_client::Registration;
    ///
    /// let registration = Registration::new("orders", "10.0.0.7", 8080);
    /// let registered = client.register_in_background(registration);
    /// // ... what does not need the registry ...
    /// registered.wait_registered().await?;
    /// println!("registered as {}", registered.instance().id);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait_registered(&self) -> Result<(), RegisterError> {
        let mut state = self.shared().state.subscribe();
        let known = |state: &RegistrationState| {
            !matches!(
                state,
                RegistrationState::Pending
                    | RegistrationState::Lost
                    | RegistrationState::Replaced { .. }
            )
        };
        match &*state.wait_for(known).await.map_err(|_| RegisterError::Stopped)? {
            RegistrationState::Refused(refusal) => Err(refusal.clone().into()),
            RegistrationState::Deregistered => Err(RegisterError::Stopped),
            _ => Ok(()),
        }
    }

    /// The instance as the registry last confirmed it, without changes by an operator. Before the
    /// first registration: as it will be registered.
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
        self.shared().instance()
    }

    /// The lease that keeps the instance registered. It changes with each registration. None before
    /// the first one, which is possible only after
    /// [`Client::register_in_background`](crate::Client::register_in_background).
    ///
    /// ```no_run
    /// # async fn example(mut registered: waypost_client::Registered)
    /// # -> Result<(), Box<dyn std::error::Error>> {
    /// println!("lease {:?}", registered.lease_id());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn lease_id(&self) -> Option<u64> {
        self.shared().lease_id()
    }

    /// The state of the registration, now and whenever it changes.
    ///
    /// The present state counts as a change: the first [`changed`](watch::Receiver::changed)
    /// returns at once, so that a receiver misses nothing since the registration. It skips states
    /// that were replaced before it read them.
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
        let mut state = self.shared().state.subscribe();
        // A change before the subscription must count, too.
        state.mark_changed();
        state
    }

    /// Sets the status. As [`update`](Self::update).
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

    /// Sets the share of traffic; an instance with 0 gets no new traffic. As
    /// [`update`](Self::update).
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

    /// Changes the instance, and returns when the registry has confirmed it. A later registration
    /// has the new values, too.
    ///
    /// Waits for as long as the registry can't be reached: to bound it, wrap it in
    /// [`tokio::time::timeout`]. If the future is dropped, the change may be applied, at the latest
    /// when the instance is registered again.
    ///
    /// # Errors
    /// [`UpdateError`] if the registry refuses, which leaves the instance unchanged.
    /// [`UpdateError::Stopped`] if the registration has ended with its runtime.
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
        self.updater.apply(&update).await
    }

    /// Deregisters, and returns when the registry has confirmed it: from then on the instance gets
    /// no calls. Takes about 10 s at most. Cancel safe: if the future is dropped, it goes on in the
    /// background.
    ///
    /// # Errors
    /// [`DeregisterError`]: the instance may still be registered, until its TTL has passed. An
    /// instance that was not registered any more is no error.
    ///
    /// ```no_run
    /// # async fn example(registered: waypost_client::Registered)
    /// # -> Result<(), waypost_client::DeregisterError> {
    /// registered.deregister().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn deregister(self) -> Result<(), DeregisterError> {
        drop(self.stop);
        self.outcome.await.unwrap_or(Err(DeregisterError::Stopped))
    }
}
