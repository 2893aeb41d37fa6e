//! A record of the audit log, as the place where something happened hands it in.
//! Pure. Invariant: a record has no place for a token, a key or the metadata of an instance.

use std::{net::SocketAddr, sync::Arc};

use waypost_auth::policy::{Action, Principal, RuleLine, Via};

use crate::model::{InstanceId, Name};

/// The greatest length of ids that come from outside, in bytes: a queue of records has to be
/// bounded in bytes, too.
const ID_BYTES_MAX: usize = 128;

/// A kind of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuditKind {
    /// A call: a write, the opening of a watch, a backup, or a refusal.
    Call,
    /// The start or the end of a session, or its refusal.
    Session,
    /// A change of whom the server trusts.
    Trust,
}

/// The outcome of what a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuditOutcome {
    /// A rule allowed it, and it was done.
    Allowed,
    /// No rule allows it.
    Denied,
    /// The caller did not prove who it is.
    Unauthenticated,
    /// The caller is over a limit.
    Limited,
    /// It was allowed, and failed.
    Failed,
}

/// A record of the audit log. Fields that are `None` are not written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AuditRecord {
    /// The kind of the record.
    pub kind: AuditKind,
    /// The caller.
    pub principal: Option<Principal>,
    /// The kind of the caller's credential.
    pub via: Option<Via>,
    /// The first 16 hex digits of the certificate's SHA-256, the token's name, or the `jti`. Cut at
    /// 128 bytes.
    pub credential: Option<Arc<str>>,
    /// The address that the connection came from.
    pub peer: Option<SocketAddr>,
    /// The name of the method: `Register`.
    pub method: Option<&'static str>,
    /// The right that was needed.
    pub action: Option<Action>,
    /// The namespace that it was about.
    pub namespace: Option<Name>,
    /// The service that it was about.
    pub service: Option<Name>,
    /// The instance that it was about.
    pub instance: Option<InstanceId>,
    /// The outcome.
    pub outcome: AuditOutcome,
    /// The status of the response: `PERMISSION_DENIED`.
    pub code: Option<&'static str>,
    /// The `reason` of the response's `ErrorInfo`: `NOT_ALLOWED`.
    pub reason: Option<&'static str>,
    /// The line of the rule that allowed it.
    pub rule: Option<RuleLine>,
    /// The epoch of what the server trusts, by which it was decided.
    pub epoch: Option<u64>,
    /// The revision that a write made.
    pub revision: Option<u64>,
    /// The id that correlates the call with other log lines. Cut at 128 bytes.
    pub correlation_id: Option<Box<str>>,
}

impl AuditRecord {
    /// Returns a record with these two fields.
    ///
    /// ```
    /// use waypost::auth::audit::{AuditKind, AuditOutcome, AuditRecord};
    ///
    /// let record = AuditRecord {
    ///     method: Some("Register"),
    ///     code: Some("OK"),
    ///     ..AuditRecord::new(AuditKind::Call, AuditOutcome::Allowed)
    /// };
    /// assert_eq!(record.principal, None);
    /// ```
    pub fn new(kind: AuditKind, outcome: AuditOutcome) -> Self {
        Self {
            kind,
            principal: None,
            via: None,
            credential: None,
            peer: None,
            method: None,
            action: None,
            namespace: None,
            service: None,
            instance: None,
            outcome,
            code: None,
            reason: None,
            rule: None,
            epoch: None,
            revision: None,
            correlation_id: None,
        }
    }

    /// Cuts the ids that come from outside at their greatest length.
    pub(super) fn bounded(mut self) -> Self {
        if let Some(id) = &mut self.correlation_id
            && id.len() > ID_BYTES_MAX
        {
            *id = cut(id).into();
        }
        if let Some(id) = &mut self.credential
            && id.len() > ID_BYTES_MAX
        {
            *id = cut(id).into();
        }
        self
    }

    /// Returns whether the caller did not prove who it is.
    pub(super) fn is_of_stranger(&self) -> bool {
        self.outcome == AuditOutcome::Unauthenticated
    }

    /// Returns whether equal records within a while become one.
    pub(super) fn is_refusal(&self) -> bool {
        use AuditOutcome::{Denied, Limited, Unauthenticated};
        matches!(self.outcome, Denied | Unauthenticated | Limited)
    }
}

impl AuditKind {
    /// All kinds, in the order of their numbers.
    pub(super) const ALL: [Self; 3] = [Self::Call, Self::Session, Self::Trust];

    /// Returns the name in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Session => "session",
            Self::Trust => "trust",
        }
    }
}

impl AuditOutcome {
    /// Returns the name in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Unauthenticated => "unauthenticated",
            Self::Limited => "limited",
            Self::Failed => "failed",
        }
    }
}

fn cut(id: &str) -> &str {
    &id[..id.floor_char_boundary(ID_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_from_outside_are_cut_between_characters() {
        let of = |id: &str| {
            let (correlation_id, credential) = (Some(id.into()), Some(id.into()));
            let record = AuditRecord::new(AuditKind::Call, AuditOutcome::Allowed);
            let record = AuditRecord { correlation_id, credential, ..record }.bounded();
            assert_eq!(record.correlation_id.as_deref(), record.credential.as_deref());
            record.correlation_id.map(String::from)
        };
        assert_eq!(of(&"x".repeat(16_000)), Some("x".repeat(128)));
        assert_eq!(of(&"x".repeat(128)), Some("x".repeat(128)));
        let euros = "\u{20ac}".repeat(50);
        assert_eq!(of(&euros), Some("\u{20ac}".repeat(42)));
    }
}
