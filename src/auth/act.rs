//! What a caller wants to do, as decisions and their records have it.
//!
//! Pure.

use waypost_auth::policy::{
    Action, Authentication, Denied, Grants, RuleLine, Scope, Unauthenticated,
};

use super::{
    audit::{AuditKind, AuditOutcome, AuditRecord},
    error::{AccessError, AccessObject, ActionName},
    session::Judgement,
};
use crate::model::{InstanceId, Name};

/// An act of a caller.
#[derive(Debug, Clone, Copy)]
pub(super) struct Act<'a> {
    /// The right that it needs; `None`: the name of the caller is enough.
    action: Option<Action>,
    scope: Scope<'a>,
    instance: Option<&'a InstanceId>,
    when_allowed: WhenAllowed,
}

/// What becomes of an act that is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenAllowed {
    /// The audit log has it.
    Record,
    /// Only a refusal is recorded.
    Pass,
}

impl<'a> Act<'a> {
    /// A call, before it is decided what it does.
    pub(super) const CALL: Self = Self {
        action: None,
        scope: Scope::Server,
        instance: None,
        when_allowed: WhenAllowed::Pass,
    };

    /// A write by a lease in a slot that no service has.
    pub(super) const UNKNOWN_LEASE: Self = Self { when_allowed: WhenAllowed::Record, ..Self::CALL };

    /// An act that changes what others see, or takes part in it for long.
    pub(super) fn recorded(action: Action, scope: Scope<'a>) -> Self {
        Self { action: Some(action), scope, instance: None, when_allowed: WhenAllowed::Record }
    }

    /// An act that only reads.
    pub(super) fn reading(action: Action, scope: Scope<'a>) -> Self {
        Self { when_allowed: WhenAllowed::Pass, ..Self::recorded(action, scope) }
    }

    /// Sets the instance that it changes.
    pub(super) fn on_instance(self, id: &'a InstanceId) -> Self {
        Self { instance: Some(id), ..self }
    }

    pub(super) fn is_recorded(self) -> bool {
        self.when_allowed == WhenAllowed::Record
    }

    /// Returns the line of the rule that allows it.
    pub(super) fn decide(self, grants: &Grants) -> Result<RuleLine, Denied> {
        self.action.map_or(Err(Denied), |action| grants.decide(action, self.scope))
    }

    /// Returns the refusal of a caller whose rules do not allow it.
    pub(super) fn not_allowed(self, authentication: &Authentication) -> AccessError {
        let Some(action) = self.action else { return Unauthenticated::NoCredentials.into() };
        if authentication.principal.is_anonymous() {
            return Unauthenticated::NoCredentials.into();
        }
        let object = match self.scope {
            Scope::Server => AccessObject::Server,
            Scope::Namespace(namespace) => AccessObject::Namespace(namespace.clone()),
            Scope::Service(service) => AccessObject::Service(service.clone()),
        };
        AccessError::NotAllowed {
            principal: authentication.principal.clone(),
            action: ActionName(action),
            object,
        }
    }

    /// Returns the record of an allowed act, by a rule of the policy if there is one.
    pub(super) fn allowed(
        self,
        judgement: Option<&Judgement>,
        rule: Option<RuleLine>,
    ) -> AuditRecord {
        AuditRecord { rule, ..self.record(AuditOutcome::Allowed, judgement) }
    }

    /// Returns the record of a refusal.
    pub(super) fn refused(self, judgement: Option<&Judgement>, error: &AccessError) -> AuditRecord {
        let record = self.record(error.outcome(), judgement);
        AuditRecord { code: Some(error.code()), reason: Some(error.reason()), ..record }
    }

    fn record(self, outcome: AuditOutcome, judgement: Option<&Judgement>) -> AuditRecord {
        let (namespace, service): (Option<&Name>, _) = match self.scope {
            Scope::Server => (None, None),
            Scope::Namespace(namespace) => (Some(namespace), None),
            Scope::Service(key) => (Some(&key.namespace), Some(&key.service)),
        };
        let authentication = judgement.and_then(|judgement| judgement.outcome.as_ref().ok());
        let authentication = authentication.map(|(authentication, _)| authentication);
        AuditRecord {
            principal: authentication.map(|one| one.principal.clone()),
            via: authentication.map(|one| one.via),
            credential: authentication.and_then(|one| one.credential.as_deref()).map(Into::into),
            action: self.action,
            namespace: namespace.cloned(),
            service: service.cloned(),
            instance: self.instance.cloned(),
            epoch: judgement.map(|judgement| judgement.epoch),
            ..AuditRecord::new(AuditKind::Call, outcome)
        }
    }
}
