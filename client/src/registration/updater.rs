//! Updates of a registration: changes the desired instance first, and then sends the update until
//! the registry has confirmed it. Never leaves a refused update in the desired instance.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::{
    spec::Update,
    state::{RegistrationState, SharedRegistration, UpdateError},
};
use crate::{
    proto::{Instance, UpdateResponse, registry_client::RegistryClient},
    registry::{CredentialState, Refusal, RegistryLink, RequestFailure, Retryability, message},
    runtime::clock,
};

/// Updates one registration.
#[derive(Clone, Debug)]
pub(crate) struct Updater {
    pub(crate) link: Arc<RegistryLink>,
    pub(crate) shared: SharedRegistration,
}

impl Updater {
    /// Applies `update`, and returns when the registry has confirmed it. A refusal leaves the
    /// desired instance as it was.
    pub(crate) async fn apply(&self, update: &Update) -> Result<(), UpdateError> {
        let before = self.shared.desired.borrow().instance.clone();
        // First, so that a registration meanwhile has it.
        self.set_desired(update);
        let pushed = self.push(update, &CancellationToken::new()).await;
        let pushed = pushed.expect("nothing supersedes it");
        if let Err(UpdateError::Invalid(_) | UpdateError::Refused(_)) = pushed {
            let undo = |instance: &mut Instance| update.undo(instance, &before);
            self.shared.desired.send_modify(|desired| undo(&mut desired.instance));
        }
        pushed
    }

    /// Changes the desired instance.
    pub(crate) fn set_desired(&self, update: &Update) {
        self.shared.desired.send_modify(|desired| update.apply(&mut desired.instance));
        // The refusal was of something else: it is no answer to this update.
        let asked_again = match &*self.shared.active.borrow() {
            Some(_) => RegistrationState::Lost,
            None => RegistrationState::Pending,
        };
        self.shared.state.send_if_modified(|state| {
            let refused = matches!(state, RegistrationState::Refused(_));
            if refused {
                *state = asked_again;
            }
            refused
        });
    }

    /// Sends `update` until the registry has confirmed it; `None` if it is `superseded` before. A
    /// request that was sent is not cancelled: its response must come before the next request,
    /// which could overtake it otherwise.
    pub(crate) async fn push(
        &self,
        update: &Update,
        superseded: &CancellationToken,
    ) -> Option<Result<(), UpdateError>> {
        let mut backoff = self.link.backoff();
        loop {
            let Some(lease_id) = self.shared.lease_id() else {
                let leased = self.wait_for_another_lease(None);
                match superseded.run_until_cancelled(leased).await? {
                    Ok(()) => continue,
                    stopped => return Some(stopped),
                }
            };
            let failure = match self.send(update, lease_id, superseded).await? {
                Ok(response) => {
                    self.store(lease_id, response.instance);
                    return Some(Ok(()));
                }
                Err(failure) => failure,
            };
            let after = match Retryability::of(&failure.status) {
                Retryability::Retry { after } => after,
                Retryability::Denied(refusal) => match self.link.credentials_of(&failure) {
                    CredentialState::Renewed => None,
                    CredentialState::Refused => return Some(Err(refusal.into())),
                },
                Retryability::Fatal(Refusal {
                    code: Code::NotFound | Code::FailedPrecondition,
                    ..
                }) => {
                    let leased = self.wait_for_another_lease(Some(lease_id));
                    if let Err(error) = superseded.run_until_cancelled(leased).await? {
                        return Some(Err(error));
                    }
                    continue;
                }
                Retryability::Fatal(refusal) => return Some(Err(refusal.into())),
            };
            let (peer, reason) = (&*failure.peer, message(&failure.status));
            tracing::debug!(peer, reason, "update failed, retrying");
            let pause = clock::sleep(backoff.delay(fastrand::f64(), after));
            superseded.run_until_cancelled(pause).await?;
        }
    }

    /// Makes one attempt; `None` if it is superseded before anything was sent.
    async fn send(
        &self,
        update: &Update,
        lease_id: u64,
        superseded: &CancellationToken,
    ) -> Option<Result<UpdateResponse, RequestFailure>> {
        if superseded.is_cancelled() {
            return None;
        }
        let connection = match superseded.run_until_cancelled(self.link.connect()).await? {
            Ok(connection) => connection,
            Err(failure) => return Some(Err(failure)),
        };
        let request = update.request(lease_id);
        let requested = self.link.request_on(&connection, |connection| async move {
            RegistryClient::new(connection).update(request).await
        });
        Some(requested.await)
    }

    /// Stores the confirmed instance, unless there is another lease meanwhile.
    fn store(&self, lease_id: u64, instance: Option<Instance>) {
        let Some(instance) = instance else { return };
        self.shared.active.send_if_modified(|active| {
            let current = active.as_mut().filter(|active| active.lease_id == lease_id);
            current.map(|active| active.instance = Arc::new(instance)).is_some()
        });
    }

    async fn wait_for_another_lease(&self, lost: Option<u64>) -> Result<(), UpdateError> {
        let mut state = self.shared.state.subscribe();
        if let Some(lost) = lost {
            self.shared.lost_lease.send_replace(lost);
        }
        let another = |state: &RegistrationState| match state {
            RegistrationState::Registered { lease_id }
            | RegistrationState::Retrying { lease_id } => Some(*lease_id) != lost,
            RegistrationState::Refused(_) | RegistrationState::Deregistered => true,
            RegistrationState::Pending
            | RegistrationState::Lost
            | RegistrationState::Replaced { .. } => false,
        };
        let state = state.wait_for(another).await.map_err(|_| UpdateError::Stopped)?;
        match &*state {
            RegistrationState::Refused(refusal) => Err(refusal.clone().into()),
            RegistrationState::Deregistered => Err(UpdateError::Stopped),
            _ => Ok(()),
        }
    }
}
