//! Attempts to register one identity, and to deregister it. After an attempt without a response the
//! instance may be registered without a lease of ours. Never removes an instance that may belong to
//! another process.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tonic::Code;
use uuid::Uuid;

use super::{spec::Registration, state::DeregisterError};
use crate::{
    proto::{DeregisterRequest, Instance, RegisterResponse, registry_client::RegistryClient},
    registry::{CredentialState, RegistryLink, RequestFailure, Retryability},
    runtime::clock,
};

/// The longest time for which a deregistration is retried.
const LEAVING_MAX: Duration = Duration::from_secs(5);

/// The attempts to register one identity.
#[derive(Debug)]
pub(crate) struct RegisterAttempt {
    link: Arc<RegistryLink>,
    /// True if the id was generated here: no other process has it.
    is_generated: bool,
    /// The failure of the last attempt that may have registered the instance.
    unanswered: Option<RequestFailure>,
}

impl RegisterAttempt {
    /// Gives `registration` an id if it has none: the registry would generate another one for each
    /// attempt, and all but the last would stay behind.
    pub(crate) fn new(link: Arc<RegistryLink>, registration: &mut Registration) -> Self {
        let id = &mut registration.instance.id;
        let is_generated = id.is_empty();
        if is_generated {
            *id = Uuid::now_v7().to_string();
        }
        Self { link, is_generated, unanswered: None }
    }

    /// Makes one attempt; `None` if it was stopped before anything was sent. Once sent, the request
    /// is not cancelled: the lease must be known to be given back.
    pub(crate) async fn send(
        &mut self,
        registration: &Registration,
        stop: &CancellationToken,
    ) -> Option<Result<RegisterResponse, RequestFailure>> {
        let connection = match stop.run_until_cancelled(self.link.connect()).await? {
            Ok(connection) => connection,
            Err(failure) => return Some(Err(failure)),
        };
        let request = registration.request();
        let requested = self.link.request_on(&connection, |connection| async move {
            RegistryClient::new(connection).register(request).await
        });
        let result = requested.await;
        match &result {
            Ok(_) => self.unanswered = None,
            Err(failure) if Retryability::of(&failure.status).is_retryable() => {
                self.unanswered = Some(failure.clone());
            }
            Err(_) => {}
        }
        Some(result)
    }

    /// Deregisters what an attempt without a response may have registered.
    pub(crate) async fn undo(&mut self, instance: &Instance) -> Result<(), DeregisterError> {
        let Some(failure) = self.unanswered.take() else { return Ok(()) };
        // Another process may hold an id that the user chose: without a lease, the registry can't
        // distinguish them.
        if !self.is_generated {
            return Err(DeregisterError::Unreachable(failure.status));
        }
        let Instance { namespace, service, id, .. } = instance.clone();
        deregister(&self.link, &DeregisterRequest { lease_id: 0, namespace, service, id }).await
    }
}

/// Deregisters, with retries. An instance that is gone already is no error.
pub(crate) async fn deregister(
    link: &RegistryLink,
    request: &DeregisterRequest,
) -> Result<(), DeregisterError> {
    let give_up = clock::now() + LEAVING_MAX;
    let mut backoff = link.backoff();
    loop {
        let left = give_up.saturating_duration_since(clock::now());
        let requested = link.request(|connection| {
            let request = request.clone();
            async move { RegistryClient::new(connection).deregister(request).await }
        });
        let failure = match clock::within(left, requested).await {
            Some(Ok(_)) => return Ok(()),
            Some(Err(failure)) => failure,
            None => return Err(DeregisterError::Unreachable(RegistryLink::timeout_status())),
        };
        // Expired, or held by another process: either way it is not ours.
        if matches!(failure.status.code(), Code::NotFound | Code::FailedPrecondition) {
            return Ok(());
        }
        let after = match Retryability::of(&failure.status) {
            Retryability::Retry { after } => after,
            Retryability::Denied(_)
                if link.credentials_of(&failure) == CredentialState::Renewed =>
            {
                None
            }
            Retryability::Denied(refusal) | Retryability::Fatal(refusal) => {
                return Err(DeregisterError::Refused(refusal));
            }
        };
        let delay = backoff.delay(fastrand::f64(), after);
        if clock::now() + delay >= give_up {
            return Err(DeregisterError::Unreachable(failure.status));
        }
        clock::sleep(delay).await;
    }
}
