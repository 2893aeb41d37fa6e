//! How a registration stands, and how asking for something about it can fail: the words that the
//! guard and the keeper share. It must do nothing by itself.

use std::sync::Arc;

use tokio::sync::watch;
use tonic::{Code, Status};

use super::spec::Registration;
use crate::{
    proto::Instance,
    registry::{Refusal, message},
};

/// How a registration stands. Nothing of it needs the user's help; it is there to be shown.
///
/// ```no_run
/// use waypost_client::{Registered, RegistrationState};
///
/// fn health(registered: &Registered) -> &'static str {
///     match &*registered.state().borrow() {
///         RegistrationState::Pending => "not yet registered",
///         RegistrationState::Registered { .. } => "registered",
///         RegistrationState::Retrying { .. } | RegistrationState::Lost => "on its way back",
///         RegistrationState::Replaced { .. } => "its id is another's",
///         RegistrationState::Refused(_) => "refused",
///         _ => "gone",
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistrationState {
    /// The registry has not answered yet: the instance is being registered for the first time.
    Pending,
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
    /// Another process registered the same id and is reached at another address. The instance is not
    /// registered; it is again once that process is gone, which is looked up after 1 s and then ever
    /// more rarely, every minute at last. Each process needs an id of its own.
    Replaced {
        /// Where the other process is reached, `host:port`.
        address: Arc<str>,
    },
    /// The registry refuses to register the instance. It is asked again from time to time, and
    /// as soon as an update changes what is registered.
    Refused(Refusal),
    /// The guard was closed or dropped.
    Deregistered,
}

/// Why an instance was not registered. A registry that can't be reached is none of the reasons:
/// [`Client::register`](crate::Client::register) waits for it.
///
/// ```no_run
/// # async fn example(client: waypost_client::Client) {
/// use waypost_client::{RegisterError, Registration};
///
/// match client.register(Registration::new("orders", "10.0.0.7", 8080)).await {
///     Ok(registered) => drop(registered),
///     Err(RegisterError::Denied(refusal)) => eprintln!("no permission: {refusal}"),
///     Err(error) => eprintln!("not registered: {error}"),
/// }
/// # }
/// ```
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
    /// The background task has ended, with the runtime that it ran in.
    #[error("the registration has ended")]
    Stopped,
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
///
/// ```no_run
/// # async fn example(mut registered: waypost_client::Registered) {
/// if let Err(waypost_client::UpdateError::Invalid(refusal)) = registered.set_weight(200).await {
///     eprintln!("still as it was: {refusal}");
/// }
/// # }
/// ```
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

/// Why an instance may still be registered after [`Registered::deregister`](crate::Registered::deregister). It leaves by itself when its
/// TTL has passed.
///
/// ```no_run
/// # async fn example(registered: waypost_client::Registered) {
/// if let Err(error) = registered.deregister().await {
///     eprintln!("callers may still come until the TTL has passed: {error}");
/// }
/// # }
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeregisterError {
    /// The registry could not be reached in time. The status says what the last attempt came to.
    #[error("the registry could not be reached: {}", message(.0))]
    Unreachable(Status),
    /// The registry refused.
    #[error("the registry refused: {0}")]
    Refused(#[source] Refusal),
    /// The background task has ended, with the runtime that it ran in.
    #[error("the registration has ended")]
    Stopped,
}

/// What the registry holds for a registration.
#[derive(Clone, Debug)]
pub(crate) struct ActiveLease {
    pub(crate) lease_id: u64,
    pub(crate) instance: Arc<Instance>,
}

/// What the guard and the keeper share.
#[derive(Clone, Debug)]
pub(crate) struct SharedRegistration {
    /// What is to be registered, now or when the lease is lost.
    pub(crate) desired: watch::Sender<Registration>,
    /// Nothing before it was registered for the first time.
    pub(crate) active: watch::Sender<Option<ActiveLease>>,
    pub(crate) state: watch::Sender<RegistrationState>,
    /// A lease that the guard found not to live.
    pub(crate) lost_lease: watch::Sender<u64>,
}

impl SharedRegistration {
    /// What is to be registered, and is not so far.
    pub(crate) fn new(registration: Registration) -> Self {
        Self {
            desired: watch::Sender::new(registration),
            active: watch::Sender::new(None),
            state: watch::Sender::new(RegistrationState::Pending),
            lost_lease: watch::Sender::new(0),
        }
    }

    /// The present lease, or the last one.
    pub(crate) fn lease_id(&self) -> Option<u64> {
        self.active.borrow().as_ref().map(|active| active.lease_id)
    }

    /// What the registry holds, as far as it has said; what is wanted before.
    pub(crate) fn instance(&self) -> Arc<Instance> {
        match &*self.active.borrow() {
            Some(active) => Arc::clone(&active.instance),
            None => Arc::new(self.desired.borrow().instance.clone()),
        }
    }
}
