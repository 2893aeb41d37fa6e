//! The records of what callers are judged by, and the place where all records go.

use crate::{
    auth::{
        Gate,
        audit::{AuditDestination, AuditKind, AuditOutcome, AuditRecord},
    },
    config::Config,
};

/// The `reason` of files that are not put into force.
const INVALID_FILES: &str = "INVALID_FILES";

/// Returns the place of audit records. `None`: without a policy and a file there are none, since
/// callers have no names.
pub(super) fn destination(config: &Config) -> Option<AuditDestination> {
    match &config.audit {
        Some(path) => Some(AuditDestination::File(path.clone())),
        None => config.policy.as_ref().map(|_| AuditDestination::Log),
    }
}

/// Records that the present version of what callers are judged by is in force.
pub(super) fn trust_in_force(gate: &Gate) {
    record(gate, AuditRecord::new(AuditKind::Trust, AuditOutcome::Allowed));
}

/// Records that another version was invalid, so that the present one stays.
pub(super) fn invalid_trust(gate: &Gate) {
    let record_of_files = AuditRecord::new(AuditKind::Trust, AuditOutcome::Failed);
    record(gate, AuditRecord { reason: Some(INVALID_FILES), ..record_of_files });
}

fn record(gate: &Gate, record: AuditRecord) {
    if let (Some(log), Some(trust)) = (gate.audit(), gate.trust()) {
        log.record(AuditRecord { epoch: Some(trust.epoch()), ..record });
    }
}
