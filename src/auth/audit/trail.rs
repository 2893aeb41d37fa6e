//! The way of the records of a request into the audit log.
//!
//! A refusal is recorded when it is decided. A decision that allows is kept until the response,
//! which completes it. A call that ends without one is recorded, too.
//!
//! Invariant: each decision of a caller passes here, so that a handler can't leave a record out.

use std::{net::SocketAddr, sync::Arc};

use http::HeaderMap;
use parking_lot::Mutex;
use waypost_serving::correlation::correlation_id;

use super::{
    AuditLog,
    record::{AuditKind, AuditOutcome, AuditRecord},
};
use crate::model::{Instance, Revision};

/// The code of calls whose callers did not wait for the response. A write may have been made.
const CANCELLED: &str = "CANCELLED";

/// The place of the records of a connection or of one call. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct AuditTrail(TrailOf);

#[derive(Debug, Clone, Default)]
enum TrailOf {
    /// Nothing is recorded.
    #[default]
    Nothing,
    Connection(Arc<AuditedConnection>),
    Call(Arc<AuditedCall>),
}

#[derive(Debug)]
struct AuditedConnection {
    log: AuditLog,
    peer: Option<SocketAddr>,
}

#[derive(Debug)]
struct AuditedCall {
    connection: Arc<AuditedConnection>,
    method: Option<&'static str>,
    correlation_id: Option<Box<str>>,
    progress: Mutex<Progress>,
}

/// The progress of a call.
#[derive(Debug, Default)]
struct Progress {
    /// The decision that the response completes.
    decision: Option<AuditRecord>,
    has_responded: bool,
    /// One of the decisions after the response was recorded.
    is_noted: bool,
}

impl AuditTrail {
    /// The trail without an audit log.
    pub(in crate::auth) const fn nothing() -> Self {
        Self(TrailOf::Nothing)
    }

    /// Returns whether nothing is recorded.
    pub(in crate::auth) fn is_nothing(&self) -> bool {
        matches!(self.0, TrailOf::Nothing)
    }

    /// The trail of a connection.
    pub(in crate::auth) fn of_connection(log: AuditLog, peer: Option<SocketAddr>) -> Self {
        Self(TrailOf::Connection(Arc::new(AuditedConnection { log, peer })))
    }

    /// The trail of a call on this connection.
    pub(in crate::auth) fn of_call(
        &self,
        method: Option<&'static str>,
        headers: &HeaderMap,
    ) -> Self {
        let connection = match &self.0 {
            TrailOf::Nothing => return Self::nothing(),
            TrailOf::Connection(connection) => connection,
            TrailOf::Call(call) => &call.connection,
        };
        Self(TrailOf::Call(Arc::new(AuditedCall {
            connection: Arc::clone(connection),
            method,
            correlation_id: correlation_id(headers).map(Into::into),
            progress: Mutex::default(),
        })))
    }

    /// Returns whether there is an audit log.
    pub(in crate::auth) fn is_kept(&self) -> bool {
        !matches!(self.0, TrailOf::Nothing)
    }

    /// Records the start of a session, or its refusal.
    pub(in crate::auth) fn session(&self, record: AuditRecord) {
        if let TrailOf::Connection(connection) = &self.0 {
            connection.record(record);
        }
    }

    /// Records a refusal. One that is not of a call has no record: it is decided again for each.
    pub(in crate::auth) fn refused(&self, record: impl FnOnce() -> AuditRecord) {
        if let TrailOf::Call(call) = &self.0 {
            call.record(record());
        }
    }

    /// Keeps a decision for the response. One against the caller that has no effect prevails over
    /// one that allows, and a later decision over an earlier one.
    pub(in crate::auth) fn decided(&self, record: impl FnOnce() -> AuditRecord) {
        let TrailOf::Call(call) = &self.0 else { return };
        let record = record();
        let mut progress = call.progress.lock();
        if progress.has_responded {
            // An open stream is judged with each message; only that it would end is a record, once.
            if record.is_refusal() && !std::mem::replace(&mut progress.is_noted, true) {
                drop(progress);
                call.record(record);
            }
            return;
        }
        let prevails = progress.decision.as_ref().is_some_and(AuditRecord::is_refusal);
        if !prevails || record.is_refusal() {
            progress.decision = Some(record);
        }
    }

    /// Completes the decision by the change that a write made.
    pub(crate) fn changed(&self, instance: Option<&Instance>, revision: Revision) {
        self.complete(|record| {
            record.revision = Some(revision.0);
            if let Some(instance) = instance {
                record.namespace = Some(instance.service.namespace.clone());
                record.service = Some(instance.service.service.clone());
                record.instance = Some(instance.id.clone());
            }
        });
    }

    /// Completes the decision by the limit that the act is over.
    pub(crate) fn limited(&self, reason: &'static str) {
        self.complete(|record| {
            if record.outcome == AuditOutcome::Allowed {
                record.outcome = AuditOutcome::Limited;
                record.reason = Some(reason);
            }
        });
    }

    /// Records the decision with the code of the response.
    pub(crate) fn respond(&self, code: impl FnOnce() -> &'static str) {
        if let TrailOf::Call(call) = &self.0 {
            call.respond(code());
        }
    }

    fn complete(&self, complete: impl FnOnce(&mut AuditRecord)) {
        if let TrailOf::Call(call) = &self.0
            && let Some(record) = &mut call.progress.lock().decision
        {
            complete(record);
        }
    }
}

impl AuditedConnection {
    fn record(&self, record: AuditRecord) {
        self.log.record(AuditRecord { peer: self.peer, ..record });
    }
}

impl AuditedCall {
    fn record(&self, record: AuditRecord) {
        let correlation_id = self.correlation_id.clone();
        self.connection.record(AuditRecord { method: self.method, correlation_id, ..record });
    }

    fn respond(&self, code: &'static str) {
        let responded = Progress { has_responded: true, ..Progress::default() };
        let progress = std::mem::replace(&mut *self.progress.lock(), responded);
        let Some(mut record) = progress.decision else { return };
        if record.is_refusal() && code == "OK" {
            self.connection.log.count_let_through();
        }
        if record.outcome == AuditOutcome::Allowed && code != "OK" {
            record.outcome = AuditOutcome::Failed;
        }
        record.code = Some(code);
        debug_assert_eq!(record.kind, AuditKind::Call);
        self.record(record);
    }
}

impl Drop for AuditedCall {
    fn drop(&mut self) {
        self.respond(CANCELLED);
    }
}
