//! The log lines of membership changes: one for each, up to a rate limit.

use std::sync::Arc;

use tracing::{info, warn};

use crate::{
    model::{Change, ChangeKind, Name, Presence, RemovalReason, Revision, Tick},
    registry::ProtectedNamespace,
};

/// The rate limit of lines: a wave of expiries must not spend its time on log lines.
const LINES_PER_SECOND: usize = 10_000;

/// Limits the lines of each second.
#[derive(Debug, Default)]
pub(super) struct LineLimiter {
    second: u64,
    logged: usize,
}

impl LineLimiter {
    /// Returns how many of the changes may be logged now.
    pub(super) fn grant(&mut self, changes: usize, now: Tick) -> usize {
        let second = now.0 / 1_000;
        if second != self.second {
            *self = Self { second, logged: 0 };
        }
        let granted = changes.min(LINES_PER_SECOND - self.logged);
        self.logged += granted;
        granted
    }
}

/// Logs one line for each change, and one for all further changes up to the revision.
pub(super) fn log_changes(changes: &[Arc<Change>], further: usize, revision: Revision) {
    changes.iter().for_each(|change| log_change(change));
    if further > 0 {
        let revision = revision.0;
        info!(
            changes = further,
            revision, "change log rate limit reached, further changes not logged"
        );
    }
}

/// Logs the start and end of protection in each namespace.
pub(super) fn log_protection(before: &[ProtectedNamespace], after: &[ProtectedNamespace]) {
    let is_in = |list: &[ProtectedNamespace], namespace: &Name| {
        list.binary_search_by(|protected| protected.namespace.cmp(namespace)).is_ok()
    };
    for ProtectedNamespace { namespace, held, why, .. } in after {
        if !is_in(before, namespace) {
            warn!(%namespace, held, %why, "mass-expiry protection started, holding evictions");
        }
    }
    for ProtectedNamespace { namespace, .. } in before {
        if !is_in(after, namespace) {
            info!(%namespace, "mass-expiry protection ended");
        }
    }
}

/// Logs a change of membership.
fn log_change(change: &Change) {
    let instance = &change.instance;
    let (namespace, service) = (&instance.service.namespace, &instance.service.service);
    let (id, revision) = (&instance.id, instance.modified.0);
    match &change.kind {
        ChangeKind::Added => {
            info!(parent: None, %namespace, %service, instance = %id, revision, "instance added");
        }
        ChangeKind::Updated { before, .. } if before.presence != instance.presence => {
            let presence = match instance.presence {
                Presence::Confirmed => "confirmed",
                Presence::Suspect => "suspect",
            };
            info!(parent: None, %namespace, %service, instance = %id, revision, presence, "instance updated");
        }
        ChangeKind::Updated { replaced, .. } => {
            info!(parent: None, %namespace, %service, instance = %id, revision, replaced, "instance updated");
        }
        ChangeKind::Removed(reason) => {
            let reason = match reason {
                RemovalReason::Deregistered => "deregistered",
                RemovalReason::Expired => "expired",
                RemovalReason::Disconnected => "disconnected",
                RemovalReason::Evicted => "evicted",
            };
            info!(parent: None, %namespace, %service, instance = %id, revision, reason, "instance removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_its_own_limit() {
        let mut line_limiter = LineLimiter::default();
        let first =
            [300, LINES_PER_SECOND, 1].map(|changes| line_limiter.grant(changes, Tick(5_200)));
        assert_eq!(first, [300, LINES_PER_SECOND - 300, 0]);
        assert_eq!(line_limiter.grant(7, Tick(5_999)), 0);
        assert_eq!(line_limiter.grant(7, Tick(6_000)), 7);
        assert_eq!(line_limiter.grant(LINES_PER_SECOND, Tick(6_001)), LINES_PER_SECOND - 7);
    }
}
