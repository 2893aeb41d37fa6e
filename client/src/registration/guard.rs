//! The registration that is kept alive: the guard that the user holds. What happens behind it is the
//! keeper's; here it is asked, and waited for. It must never register on its own.

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

/// An instance that stays registered for as long as this is held. Made by
/// [`Client::register_in_background`](crate::Client::register_in_background), which returns at once, and by
/// [`Client::register`](crate::Client::register), which waits for the registry's first answer.
///
/// A background task sends heartbeats. It finds its way back after every outage of the registry, and
/// registers again (with the same id, and with what was last set) where the registry has forgotten
/// the instance. [`state`](Self::state) tells how that goes; nothing of it needs the user's help.
///
/// [`deregister`](Self::deregister) deregisters and says how it went. Dropping deregisters in the background,
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
/// registered.deregister().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping it deregisters the instance"]
pub struct Registered {
    updater: Updater,
    ended: oneshot::Receiver<Result<(), DeregisterError>>,
    /// Cancelled where the status is to follow its readiness no more.
    following: CancellationToken,
    /// Ends with the following.
    followed: oneshot::Receiver<()>,
    stop: DropGuard,
}

impl Registered {
    /// Registers, however long the registry is away, and keeps it so. Where it is dropped before, what
    /// it may have registered is deregistered.
    pub(crate) async fn begin(
        link: Arc<RegistryLink>,
        heartbeats: Heartbeats,
        registration: Registration<impl Stream<Item = bool> + Send + 'static>,
    ) -> Result<Self, RegisterError> {
        let (answer, answered) = oneshot::channel();
        let registered = Self::keep(link, heartbeats, registration, Some(answer));
        answered.await.unwrap_or(Err(RegisterError::Stopped))?;
        Ok(registered)
    }

    /// Wants it registered from now on.
    pub(crate) fn start(
        link: Arc<RegistryLink>,
        heartbeats: Heartbeats,
        registration: Registration<impl Stream<Item = bool> + Send + 'static>,
    ) -> Self {
        Self::keep(link, heartbeats, registration, None)
    }

    fn keep(
        link: Arc<RegistryLink>,
        heartbeats: Heartbeats,
        registration: Registration<impl Stream<Item = bool> + Send + 'static>,
        answer: Option<oneshot::Sender<Result<(), RegisterError>>>,
    ) -> Self {
        let (registration, ready) = registration.split();
        let token = CancellationToken::new();
        let following = token.child_token();
        let stop = token.clone().drop_guard();
        let (end, ended) = oneshot::channel();
        let keeper =
            RegistrationTask::new(Arc::clone(&link), heartbeats, registration, answer, token);
        let updater = Updater { link, shared: keeper.shared() };
        let (follow_end, followed) = oneshot::channel();
        let follow = follow(updater.clone(), ready, following.clone());
        tasks::spawn("readiness", async move {
            let _end = follow_end;
            follow.await;
        });
        tasks::spawn("registration", async move {
            // Nobody may be waiting: then nobody is to be told.
            let _ = end.send(keeper.run().await);
        });
        Self { updater, ended, following, followed, stop }
    }

    /// Returns when the status is what is set: nothing else is on its way to the registry.
    pub(crate) async fn stop_following_readiness(&mut self) {
        self.following.cancel();
        // Told by the end of the one who could tell.
        let _ = (&mut self.followed).await;
    }

    fn shared(&self) -> &SharedRegistration {
        &self.updater.shared
    }

    /// Waits until the instance is registered; returns at once where it is.
    ///
    /// Waits for as long as the registry can't be reached: to bound it, wrap it in
    /// [`tokio::time::timeout`]. Cancel safe.
    ///
    /// # Errors
    /// [`RegisterError`] where the registry refuses at the moment: it is asked again all the same, from
    /// time to time and as soon as an update changes what is registered. [`RegisterError::Stopped`]
    /// where the registration has ended with its runtime.
    ///
    /// ```no_run
    /// # async fn example(client: waypost_client::Client)
    /// # -> Result<(), waypost_client::RegisterError> {
    /// use waypost_client::Registration;
    ///
    /// let registered = client.register_in_background(Registration::new("orders", "10.0.0.7", 8080));
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

    /// The instance as the registry last said it holds it. Not changed by what an operator does. Before
    /// it was registered for the first time: as it is to be.
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

    /// The lease that keeps the instance registered. Another one each time that it had to be
    /// registered again; none before it was registered for the first time, which only
    /// [`Client::register_in_background`](crate::Client::register_in_background) returns before.
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
        let mut state = self.shared().state.subscribe();
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
        self.updater.apply(&update).await
    }

    /// Deregisters, and returns when the registry has said so: from then on nobody is sent here.
    /// Takes about 10 s at most. Cancel safe: where the future is dropped, it goes on in the
    /// background.
    ///
    /// # Errors
    /// [`DeregisterError`]: the instance may still be registered, until its TTL has passed. It is no error
    /// when it was not registered any more.
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
        self.ended.await.unwrap_or(Err(DeregisterError::Stopped))
    }
}
