//! Delays after the registry refused the credentials: one immediate attempt if they were renewed
//! meanwhile, and a backoff otherwise, which ends early when they are renewed. Pure but for the
//! notification.

use std::{future, time::Duration};

use tokio::sync::watch;

use crate::runtime::{backoff::Backoff, clock};

/// The first and the longest delay before a request with refused credentials is sent again.
const WAIT: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(30);

/// The shortest delay, however often the credentials change: a source may return another token each
/// time.
const RENEWED_WAIT: Duration = Duration::from_secs(1);

/// The state of the credentials when the registry refused them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CredentialState {
    /// The same that were refused.
    Refused,
    /// They were renewed since the request.
    Renewed,
}

/// A new backoff for a caller whose credentials are refused.
pub(crate) fn denied_backoff() -> Backoff {
    Backoff::new(WAIT, WAIT_MAX)
}

/// The delay before the next attempt. `random` is from 0 to 1.
pub(crate) fn denied_delay(backoff: &mut Backoff, state: CredentialState, random: f64) -> Duration {
    let at_once = backoff.is_fresh() && state == CredentialState::Renewed;
    // Half of it at least: a registry that counts refusals closes the connection.
    let delay = backoff.delay(0.5 + random / 2.0, None);
    if at_once { Duration::ZERO } else { delay }
}

/// The changes of a client's credentials, as one caller sees them.
#[derive(Debug)]
pub(crate) struct CredentialChanges {
    /// None: there are no credentials.
    versions: Option<watch::Receiver<u64>>,
}

impl CredentialChanges {
    pub(super) fn new(versions: Option<watch::Receiver<u64>>) -> Self {
        Self { versions }
    }

    /// Marks the present credentials as those of the next request.
    pub(crate) fn mark_unchanged(&mut self) {
        if let Some(versions) = &mut self.versions {
            versions.mark_unchanged();
        }
    }

    /// The state of the credentials that were marked.
    pub(crate) fn since_marked(&self) -> CredentialState {
        match &self.versions {
            Some(versions) if versions.has_changed().unwrap_or(false) => CredentialState::Renewed,
            _ => CredentialState::Refused,
        }
    }

    /// Waits until the credentials have changed, but for a second at least; forever if there are
    /// none. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        clock::sleep(RENEWED_WAIT).await;
        if let Some(versions) = &mut self.versions
            && versions.changed().await.is_ok()
        {
            return;
        }
        future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewed_credentials_are_tried_at_once_and_once() {
        let mut backoff = denied_backoff();
        let mut delay = |state, random| denied_delay(&mut backoff, state, random).as_millis();
        assert_eq!(delay(CredentialState::Renewed, 1.0), 0);
        assert_eq!(delay(CredentialState::Renewed, 1.0), 2_000);
        assert_eq!(delay(CredentialState::Renewed, 0.0), 2_000);
    }

    #[test]
    fn refused_credentials_are_tried_ever_more_rarely_up_to_half_a_minute() {
        let mut backoff = denied_backoff();
        let mut delay = |random| denied_delay(&mut backoff, CredentialState::Refused, random);
        let delays: Vec<_> = (0..7).map(|_| delay(1.0).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(delay(0.0).as_secs(), 15);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_ends_the_wait_after_a_second() {
        let versions = watch::Sender::new(0);
        let mut changes = CredentialChanges::new(Some(versions.subscribe()));
        changes.mark_unchanged();
        assert_eq!(changes.since_marked(), CredentialState::Refused);
        versions.send_replace(1);
        assert_eq!(changes.since_marked(), CredentialState::Renewed);
        let began = clock::now();
        changes.changed().await;
        assert_eq!(clock::now() - began, RENEWED_WAIT);
        let limit = Duration::from_secs(3600);
        assert_eq!(clock::within(limit, changes.changed()).await, None);
        let mut none = CredentialChanges::new(None);
        assert_eq!(clock::within(limit, none.changed()).await, None);
    }
}
