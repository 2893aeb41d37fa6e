//! The state of a registration, which guard and task share, and the errors of requests about it.

use std::sync::Arc;

use tokio::sync::watch;
use tonic::{Code, Status};

use super::spec::Registration;
use crate::{
    proto::Instance,
    registry::{Refusal, message},
};

/// The state of a registration. For display: the client handles all of it.
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
    /// The registry has not responded yet: the instance is being registered for the first time.
    Pending,
    /// The instance is registered, as far as is known.
    Registered {
        /// Its lease.
        lease_id: u64,
    },
    /// The registry is unreachable; the instance stays registered until its TTL has passed.
    Retrying {
        /// The lease that can't be renewed at present.
        lease_id: u64,
    },
    /// The registry does not know the lease any more: the instance is being registered again.
    Lost,
    /// Another process registered the same id at another address. This instance is registered again
    /// once that process is gone; the client checks that after 1 s and then ever more rarely, up to
    /// every minute. Each process needs an id of its own.
    Replaced {
        /// The address of the other process, `host:port`.
        address: Arc<str>,
    },
    /// The registry refuses the registration. The client retries from time to time, and as soon as
    /// an update changes the registration.
    Refused(Refusal),
    /// The guard was dropped, or deregistered the instance.
    Deregistered,
}

/// An error of a registration. An unreachable registry is none:
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
    /// A field of the instance is invalid; the refusal names the fields.
    #[error("the instance is invalid: {0}")]
    Invalid(#[source] Refusal),
    /// A limit of the registry is reached.
    #[error("a limit of the registry is reached: {0}")]
    LimitReached(#[source] Refusal),
    /// This client is not allowed to register.
    #[error("permission denied: {0}")]
    Denied(#[source] Refusal),
    /// The registry refused for another reason.
    #[error("the registry refused: {0}")]
    Refused(#[source] Refusal),
    /// The background task ended with the runtime that it ran in.
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

/// An error of an update.
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
    /// A new value is invalid; the refusal names the fields.
    #[error("the update is invalid: {0}")]
    Invalid(#[source] Refusal),
    /// The registry refused for another reason.
    #[error("the registry refused: {0}")]
    Refused(#[source] Refusal),
    /// The background task ended with the runtime that it ran in.
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

/// An error of [`Registered::deregister`](crate::Registered::deregister): the instance may still be
/// registered until its TTL has passed.
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
    /// The registry could not be reached in time. The status is that of the last attempt.
    #[error("the registry could not be reached: {}", message(.0))]
    Unreachable(Status),
    /// The registry refused.
    #[error("the registry refused: {0}")]
    Refused(#[source] Refusal),
    /// The background task ended with the runtime that it ran in.
    #[error("the registration has ended")]
    Stopped,
}

/// The lease and instance that the registry confirmed.
#[derive(Clone, Debug)]
pub(crate) struct ActiveLease {
    pub(crate) lease_id: u64,
    pub(crate) instance: Arc<Instance>,
}

/// The state that guard and task share.
#[derive(Clone, Debug)]
pub(crate) struct SharedRegistration {
    /// The instance to register, now or after the lease is lost.
    pub(crate) desired: watch::Sender<Registration>,
    /// None before the first registration.
    pub(crate) active: watch::Sender<Option<ActiveLease>>,
    pub(crate) state: watch::Sender<RegistrationState>,
    /// A lease that the guard found to be lost.
    pub(crate) lost_lease: watch::Sender<u64>,
}

impl SharedRegistration {
    /// Starts with an instance that is not registered yet.
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

    /// The instance as the registry last confirmed it; before that, as desired.
    pub(crate) fn instance(&self) -> Arc<Instance> {
        match &*self.active.borrow() {
            Some(active) => Arc::clone(&active.instance),
            None => Arc::new(self.desired.borrow().instance.clone()),
        }
    }
}
