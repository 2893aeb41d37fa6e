//! The caller of a request, and its decisions: each returns a [`Permit`] or the reason to refuse,
//! and passes to the audit log.

use std::{collections::HashSet, sync::Arc, time::Duration};

use http::HeaderMap;
use waypost_auth::policy::{
    Action, Authentication, Grants, RegisterDenied, RuleLine, Scope, Sight, Unauthenticated,
};

use super::{
    act::Act,
    audit::AuditTrail,
    error::AccessError,
    lease_rights::{LeaseRange, LeaseRights},
    permit::{
        CopyStore, DiscoverService, ListNamespace, OperateService, Permit, ReadStatus,
        RegisterService, ReleaseNamespace, WatchScope,
    },
    quota::{OverLimit, PrincipalQuota},
    session::{Enforcement, Judgement, LeaseMemory, Session},
};
use crate::model::{Host, InstanceId, Name, ServiceKey, Tick};

/// The caller of a request. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Caller {
    /// `None`: a server without a policy, whose callers may do everything.
    session: Option<Arc<Session>>,
    trail: AuditTrail,
}

/// The identity of a caller, with its rights at an epoch.
#[derive(Debug)]
pub(crate) struct CallerIdentity {
    pub(crate) authentication: Authentication,
    pub(crate) grants: Grants,
    pub(crate) epoch: u64,
}

/// The scope of a namespace watch, or the services that it names.
#[derive(Debug, Clone)]
pub enum WatchTarget {
    /// All services of a namespace that the caller may discover.
    Namespace(Name),
    /// These services.
    Services(HashSet<Arc<ServiceKey>>),
}

impl Caller {
    /// The caller of a server without a policy, who may do everything.
    pub const fn unrestricted() -> Self {
        Self { session: None, trail: AuditTrail::nothing() }
    }

    /// The caller of a server without a policy, and its trail.
    pub(super) fn unjudged(trail: AuditTrail) -> Self {
        Self { session: None, trail }
    }

    pub(super) fn new(session: Session, trail: AuditTrail) -> Self {
        if trail.is_kept()
            && let Some(record) = session.opening_record()
        {
            trail.session(record);
        }
        Self { session: Some(Arc::new(session)), trail }
    }

    /// Returns the caller of one call, by the method's name.
    pub(crate) fn of_call(mut self, method: Option<&'static str>, headers: &HeaderMap) -> Self {
        self.trail = self.trail.of_call(method, headers);
        self
    }

    /// Returns whether a policy judges the caller, or its calls are recorded.
    pub(crate) fn is_judged_or_recorded(&self) -> bool {
        self.session.is_some() || !self.trail.is_nothing()
    }

    /// Returns the way of its records.
    pub(crate) fn trail(&self) -> &AuditTrail {
        &self.trail
    }

    /// Returns the epoch in force; 0 without a policy.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.session.as_ref().map_or(0, |session| session.epoch())
    }

    /// Checks that the identity is valid now.
    ///
    /// Errors: it was refused, or is not valid any more.
    pub(crate) fn check(&self) -> Result<(), AccessError> {
        self.check_identity(|_, _| true)
    }

    /// Checks that the caller has proved an identity.
    pub(crate) fn check_known(&self) -> Result<(), AccessError> {
        self.check_identity(|authentication, _| !authentication.principal.is_anonymous())
    }

    /// Checks that the caller may discover some service, before its request is read.
    pub(crate) fn check_discovery(&self) -> Result<(), AccessError> {
        self.check_identity(|authentication, grants| {
            !authentication.principal.is_anonymous() || grants.gives(Action::Discover)
        })
    }

    /// Checks that the caller may read the server's health, as each known one may.
    pub(crate) fn check_probe(&self) -> Result<(), AccessError> {
        let Some(session) = &self.session else { return Ok(()) };
        match valid(session, &session.judgement()) {
            Ok((authentication, _)) if !authentication.principal.is_anonymous() => Ok(()),
            _ => self.decide(Act::reading(Action::Probe, Scope::Server)),
        }
    }

    /// Allows to register an instance of a service at a host.
    pub fn register(
        &self,
        service: ServiceKey,
        id: &InstanceId,
        host: &Host,
    ) -> Result<Permit<RegisterService>, AccessError> {
        let act = Act::recorded(Action::Register, Scope::Service(&service)).on_instance(id);
        self.decide_by(act, (), |session, authentication, grants| {
            match grants.decide_register(&service, host, session.peer) {
                Ok(rule) => Ok(((), rule)),
                Err(RegisterDenied::NotAllowed) => Err(act.not_allowed(authentication)),
                Err(RegisterDenied::Host(reason)) => Err(AccessError::HostNotAllowed {
                    principal: authentication.principal.clone(),
                    service: service.clone(),
                    reason: reason.to_string(),
                }),
            }
        })?;
        self.take_write()?;
        let instances_max = self.instances_max(&service.namespace);
        Ok(self.permit(RegisterService { service, instances_max }))
    }

    /// Allows to change or remove an instance of a service by its identity.
    pub fn operate(
        &self,
        service: ServiceKey,
        id: &InstanceId,
    ) -> Result<Permit<OperateService>, AccessError> {
        let act = Act::recorded(Action::Operate, Scope::Service(&service));
        self.decide(act.on_instance(id))?;
        self.take_write()?;
        Ok(self.permit(OperateService(service)))
    }

    /// Allows to remove the instances that protection holds in a namespace.
    pub fn release(&self, namespace: Name) -> Result<Permit<ReleaseNamespace>, AccessError> {
        self.decide(Act::recorded(Action::Operate, Scope::Namespace(&namespace)))?;
        self.take_write()?;
        Ok(self.permit(ReleaseNamespace(namespace)))
    }

    /// Returns whether the caller may change or remove the instance of a lease in the slot that the
    /// service has.
    pub(crate) fn may_change_lease_of(&self, service: Option<&ServiceKey>) -> bool {
        let scope = service.map(Scope::Service);
        let act = scope.map_or(Act::UNKNOWN_LEASE, |scope| Act::recorded(Action::Register, scope));
        let (Some(session), Some(_)) = (&self.session, service) else {
            let judgement = self.session.as_ref().map(|session| session.judgement());
            self.trail.decided(|| act.allowed(judgement.as_deref(), None));
            return self.session.is_none();
        };
        let judgement = session.judgement();
        let decided = valid(session, &judgement).map_err(AccessError::from);
        let decided = decided.and_then(|(authentication, grants)| {
            act.decide(grants).map_err(|_| act.not_allowed(authentication))
        });
        match decided {
            Ok(rule) => {
                self.trail.decided(|| act.allowed(Some(&judgement), Some(rule)));
                true
            }
            // The response is that of a lease which never was.
            Err(error) => {
                self.trail.decided(|| act.refused(Some(&judgement), &error));
                judgement.enforcement == Enforcement::LogOnly
            }
        }
    }

    /// Returns whether the owner of a lease matters, to decisions or to records of them.
    pub(crate) fn judges_leases(&self) -> bool {
        self.session.is_some() || self.trail.is_kept()
    }

    /// Allows to read the instances of a service.
    pub fn discover(&self, service: ServiceKey) -> Result<Permit<DiscoverService>, AccessError> {
        self.decide(Act::reading(Action::Discover, Scope::Service(&service)))?;
        Ok(self.permit(DiscoverService(service)))
    }

    /// Allows to list the services of a namespace that the caller may discover.
    pub fn list(&self, namespace: Name) -> Result<Permit<ListNamespace>, AccessError> {
        let act = Act::reading(Action::Discover, Scope::Namespace(&namespace));
        let sight = self.sight(act, &namespace)?;
        Ok(self.permit(ListNamespace { namespace, sight }))
    }

    /// Allows to open a watch of services.
    pub fn watch(&self, subjects: WatchTarget) -> Result<Permit<WatchScope>, AccessError> {
        let permit = self.watch_on(subjects)?;
        let slot = self.within_limit(|quota, _| quota.watch())?;
        Ok(permit.holding(slot))
    }

    /// Allows an open watch to continue with what the caller may discover now.
    pub(crate) fn watch_on(
        &self,
        subjects: WatchTarget,
    ) -> Result<Permit<WatchScope>, AccessError> {
        let scope = match subjects {
            WatchTarget::Services(keys) => {
                for key in &keys {
                    self.decide(Act::reading(Action::Discover, Scope::Service(key)))?;
                }
                self.record_watch(&keys)?;
                WatchScope::Services(keys)
            }
            WatchTarget::Namespace(namespace) => {
                let act = Act::recorded(Action::Discover, Scope::Namespace(&namespace));
                let sight = self.sight(act, &namespace)?;
                WatchScope::Namespace(namespace, sight)
            }
        };
        Ok(self.permit(scope))
    }

    /// Allows to read the status of the server.
    pub fn read_status(&self) -> Result<Permit<ReadStatus>, AccessError> {
        self.decide(Act::reading(Action::Status, Scope::Server))?;
        Ok(self.permit(ReadStatus(())))
    }

    /// Allows to copy the store.
    pub fn copy_store(&self) -> Result<Permit<CopyStore>, AccessError> {
        self.decide(Act::recorded(Action::Backup, Scope::Server))?;
        Ok(self.permit(CopyStore(())))
    }

    /// Takes one of the writes that the caller may do. Renewals are none.
    pub(crate) fn take_write(&self) -> Result<(), AccessError> {
        self.within_limit(|quota, now| quota.write(now)).map(drop)
    }

    /// Counts its connection, once.
    pub(super) fn take_connection(&self) -> Result<(), AccessError> {
        let Some(session) = &self.session else { return Ok(()) };
        if session.connection.get().is_none()
            && let Some(slot) = self.within_limit(|quota, _| quota.connection())?
        {
            // Another call may have been faster.
            let _spare = session.connection.set(slot);
        }
        Ok(())
    }

    /// Takes what has a limit. `None` without a policy, or where it is over a limit of a policy
    /// that is not enforced.
    fn within_limit<T>(
        &self,
        take: impl FnOnce(&PrincipalQuota, Tick) -> Result<T, OverLimit>,
    ) -> Result<Option<T>, AccessError> {
        let Some(session) = &self.session else { return Ok(None) };
        let judgement = session.judgement();
        let (Some(quota), Ok((authentication, _))) = (&judgement.quota, &judgement.outcome) else {
            return Ok(None);
        };
        let over = match take(quota, session.tick()) {
            Ok(taken) => return Ok(Some(taken)),
            Err(over) => over,
        };
        let error = AccessError::over_limit(&authentication.principal, over);
        self.trail.limited(error.reason());
        match judgement.enforcement {
            Enforcement::Refuse => Err(error),
            Enforcement::LogOnly => Ok(None),
        }
    }

    /// Returns the number of instances that a namespace may have.
    fn instances_max(&self, namespace: &Name) -> Option<usize> {
        let judgement = self.session.as_ref()?.judgement();
        match judgement.enforcement {
            Enforcement::Refuse => judgement.policy.instances_max(namespace),
            Enforcement::LogOnly => None,
        }
    }

    /// Returns the decisions on leases, for one part of a heartbeat.
    pub(crate) fn lease_rights(&self) -> LeaseRights<'_> {
        let Some(session) = &self.session else { return LeaseRights(LeaseRange::All) };
        let judgement = session.judgement();
        if judgement.enforcement == Enforcement::LogOnly {
            return LeaseRights(LeaseRange::All);
        }
        match valid(session, &judgement) {
            Ok((_, grants)) if grants.is_unrestricted(Action::Register) => {
                return LeaseRights(LeaseRange::All);
            }
            Ok(_) => {}
            Err(_) => return LeaseRights(LeaseRange::Nothing),
        }
        let mut memory = session.leases.lock();
        if memory.epoch != judgement.epoch {
            *memory = LeaseMemory { epoch: judgement.epoch, ..LeaseMemory::default() };
        }
        LeaseRights(LeaseRange::Some { judgement, memory })
    }

    /// Returns whether the caller has proved an identity, or needs none.
    pub(crate) fn is_known(&self) -> bool {
        let Some(session) = &self.session else { return true };
        let judgement = session.judgement();
        let valid = valid(session, &judgement);
        valid.is_ok_and(|(authentication, _)| !authentication.principal.is_anonymous())
    }

    /// Returns the identity; `None` without a policy, or if it is not valid.
    pub(crate) fn identity(&self) -> Option<CallerIdentity> {
        let session = self.session.as_ref()?;
        let judgement = session.judgement();
        let (authentication, grants) = valid(session, &judgement).ok()?.clone();
        Some(CallerIdentity { authentication, grants, epoch: judgement.epoch })
    }

    /// Records that its request was refused before it was decided what it does.
    pub(super) fn record_refusal(&self, error: &AccessError) {
        let judgement = self.session.as_ref().map(|session| session.judgement());
        self.trail.refused(|| Act::CALL.refused(judgement.as_deref(), error));
    }

    /// Returns whether no call or stream has this caller.
    pub(super) fn is_unused(&self) -> bool {
        self.session.as_ref().is_some_and(|session| Arc::strong_count(session) == 1)
    }

    /// Returns whether the credentials were accepted.
    pub(super) fn is_identified(&self) -> bool {
        self.session.as_ref().is_none_or(|session| session.judgement().outcome.is_ok())
    }

    /// Returns the time until the identity ends; `None` if it does not, or has.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let session = self.session.as_ref()?;
        session.time_left(session.judgement().deadline?)
    }

    fn permit<A>(&self, act: A) -> Permit<A> {
        Permit::new(act, self.trail.clone())
    }

    fn check_identity(
        &self,
        suffices: impl FnOnce(&Authentication, &Grants) -> bool,
    ) -> Result<(), AccessError> {
        let Some(session) = &self.session else { return Ok(()) };
        let judgement = session.judgement();
        let reason = match valid(session, &judgement) {
            Ok((authentication, grants)) if suffices(authentication, grants) => return Ok(()),
            Ok(_) => Unauthenticated::NoCredentials,
            Err(reason) => reason,
        };
        self.refuse(Act::CALL, &judgement, reason.into())
    }

    /// Records that services are watched, all of one namespace: as one act.
    fn record_watch(&self, keys: &HashSet<Arc<ServiceKey>>) -> Result<(), AccessError> {
        let Some(first) = keys.iter().next() else { return Ok(()) };
        let first = Scope::Service(first);
        let scope = match first {
            Scope::Service(key) if keys.len() > 1 => Scope::Namespace(&key.namespace),
            scope => scope,
        };
        let act = Act::recorded(Action::Discover, scope);
        self.decide_by(act, (), |_, authentication, grants| {
            let rule = grants.decide(Action::Discover, first);
            Ok(((), rule.map_err(|_| act.not_allowed(authentication))?))
        })
    }

    fn sight(&self, act: Act<'_>, namespace: &Name) -> Result<Sight, AccessError> {
        self.decide_by(act, Sight::whole(), |_, authentication, grants| {
            let visible = grants.sight(namespace);
            let visible = visible.zip(grants.decide_any(Action::Discover, namespace).ok());
            visible.ok_or_else(|| act.not_allowed(authentication))
        })
    }

    fn decide(&self, act: Act<'_>) -> Result<(), AccessError> {
        self.decide_by(act, (), |_, authentication, grants| {
            let rule = act.decide(grants).map_err(|_| act.not_allowed(authentication))?;
            Ok(((), rule))
        })
    }

    /// Decides on an act by the caller's rights. `everything` is the result where they have no
    /// bounds: without a policy, or by one that is not enforced.
    fn decide_by<T>(
        &self,
        act: Act<'_>,
        everything: T,
        decide: impl FnOnce(&Session, &Authentication, &Grants) -> Result<(T, RuleLine), AccessError>,
    ) -> Result<T, AccessError> {
        let Some(session) = &self.session else {
            if act.is_recorded() {
                self.trail.decided(|| act.allowed(None, None));
            }
            return Ok(everything);
        };
        let judgement = session.judgement();
        let decided = valid(session, &judgement)
            .map_err(AccessError::Unauthenticated)
            .and_then(|(authentication, grants)| decide(session, authentication, grants));
        match decided {
            Ok((allowed, rule)) => {
                if act.is_recorded() {
                    self.trail.decided(|| act.allowed(Some(&judgement), Some(rule)));
                }
                Ok(allowed)
            }
            Err(error) => self.refuse(act, &judgement, error).map(|()| everything),
        }
    }

    /// Refuses, unless the policy is not enforced.
    fn refuse(
        &self,
        act: Act<'_>,
        judgement: &Judgement,
        error: AccessError,
    ) -> Result<(), AccessError> {
        let record = || act.refused(Some(judgement), &error);
        match judgement.enforcement {
            Enforcement::Refuse => {
                self.trail.refused(record);
                Err(error)
            }
            Enforcement::LogOnly => {
                self.trail.decided(record);
                Ok(())
            }
        }
    }
}

/// Returns the identity and rights, if they are valid now.
fn valid<'a>(
    session: &Session,
    judgement: &'a Judgement,
) -> Result<&'a (Authentication, Grants), Unauthenticated> {
    let judged = judgement.outcome.as_ref().map_err(|reason| *reason)?;
    if session.is_over(judgement.deadline) {
        return Err(Unauthenticated::CredentialsExpired);
    }
    Ok(judged)
}
