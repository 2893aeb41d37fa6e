//! A link's credentials: follows them, moves the connection when they are renewed, and takes note
//! of their refusals.

use std::{
    sync::{Arc, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use super::{RegistryConnection, RegistryLink, RenewalState, RequestFailure};
use crate::{
    credentials::POLL_INTERVAL,
    registry::{
        denial::{CredentialChanges, CredentialState},
        state::RegistryState,
    },
    runtime::{
        clock::{self, Instant},
        tasks,
    },
};

impl RegistryLink {
    /// The changes of the credentials, for a caller.
    pub(crate) fn credentials(&self) -> CredentialChanges {
        let credentials = self.credentials.as_ref();
        CredentialChanges::new(credentials.map(|credentials| credentials.version()))
    }

    pub(super) fn credentials_version(&self) -> u64 {
        self.credentials.as_ref().map_or(0, |credentials| credentials.current_version())
    }

    /// The state of the credentials of a request that failed.
    pub(crate) fn credentials_of(&self, failure: &RequestFailure) -> CredentialState {
        if self.credentials_version() > failure.credentials_version {
            CredentialState::Renewed
        } else {
            CredentialState::Refused
        }
    }

    /// Takes note of refused credentials: reads their source again. Unless that changed them, the
    /// state is denied.
    pub(super) fn deny(&self, connection: &RegistryConnection, reason: &str) {
        if let Some(left) = self.credentials.as_ref().and_then(|credentials| credentials.refresh())
        {
            self.plan_renewal(left);
        }
        if connection.transport.is_outdated() {
            // The next request goes over a connection with the present credentials.
            self.addresses[connection.index].connection.discard(&connection.transport);
        }
        if self.credentials_version() > connection.credentials_version {
            return;
        }
        let now = clock::now();
        let news = self.state.send_if_modified(|state| {
            let news = !matches!(state, RegistryState::Denied { .. });
            if news {
                *state = RegistryState::Denied { since: now, reason: reason.into() };
            }
            news
        });
        if news {
            let peer = &*connection.peer;
            tracing::warn!(peer, reason, "the registry refused the credentials, retrying");
        }
    }

    /// Starts the task that follows the credentials, if there are any and it does not run.
    pub(super) fn follow_credentials(&self) {
        if self.credentials.is_none() {
            return;
        }
        let mut renewal = self.renewal();
        if renewal.task.strong_count() > 0 {
            return;
        }
        let token = Arc::new(());
        renewal.task = Arc::downgrade(&token);
        let (link, ended) = (Weak::clone(&self.this), self.ended.clone());
        tasks::spawn("credentials", async move {
            // Owned by the task: however it ends, with its runtime for example, another one can
            // start.
            let _alive = token;
            ended.run_until_cancelled(run(link)).await;
        });
    }

    /// Reads the credentials, and moves to them if it is time.
    async fn renew_if_due(&self) {
        let Some(credentials) = &self.credentials else { return };
        if let Some(left) = credentials.poll().await {
            self.plan_renewal(left);
        }
        if self.renewal().plan.at().is_some_and(|at| at <= clock::now()) {
            self.renew().await;
        }
    }

    fn plan_renewal(&self, left: Duration) {
        tracing::debug!(left_seconds = left.as_secs(), "credentials of the registry replaced");
        self.renewal().plan.credentials_replaced(left, clock::now(), fastrand::f64());
    }

    /// Opens another connection in place of an outdated one. Streams move to it, and the outdated
    /// one closes after the last of them.
    async fn renew(&self) {
        let current = self.choice().failback.current();
        for (index, address) in self.addresses.iter().enumerate() {
            let Some(outdated) = address.connection.current().filter(|it| it.is_outdated()) else {
                continue;
            };
            if index != current {
                address.connection.discard(&outdated);
                continue;
            }
            let replaced = address.connection.replace(&address.dialer, &address.authority).await;
            if let Err(error) = replaced {
                let peer = &*address.authority;
                if self.renewal().plan.failed(clock::now(), fastrand::f64()) {
                    let what = "can't connect with renewed credentials, retrying";
                    tracing::warn!(peer, %error, "{what}");
                }
                return;
            }
            tracing::debug!(peer = &*address.authority, "connected with renewed credentials");
        }
        self.renewal().plan.done();
        self.moves.send_modify(|count| *count += 1);
    }

    /// The time at which the task has something to do.
    fn next_look(&self) -> Instant {
        let poll_at = clock::now() + POLL_INTERVAL;
        self.renewal().plan.at().map_or(poll_at, |at| at.min(poll_at))
    }

    fn renewal(&self) -> MutexGuard<'_, RenewalState> {
        // No code under the lock panics.
        self.renewal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows the credentials until the link is dropped.
async fn run(link: Weak<RegistryLink>) {
    loop {
        let Some(at) = link.upgrade().map(|link| link.next_look()) else { return };
        clock::sleep_until(at).await;
        let Some(link) = link.upgrade() else { return };
        link.renew_if_due().await;
    }
}
