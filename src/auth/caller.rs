//! The caller of a request, and its decisions: each returns a [`Permit`] or the reason to refuse.

use std::{collections::HashSet, sync::Arc, time::Duration};

use parking_lot::MutexGuard;
use tracing::warn;
use waypost_auth::policy::{
    Action, Authentication, Grants, RegisterDenied, RuleLine, Scope, Sight, Unauthenticated,
};

use super::{
    error::{AccessError, AccessObject, ActionName},
    permit::{
        CopyStore, DiscoverService, ListNamespace, OperateService, Permit, ReadStatus,
        RegisterService, ReleaseNamespace, WatchScope,
    },
    session::{Enforcement, Judgement, LeaseMemory, Session},
};
use crate::{
    model::{Host, Name, ServiceKey},
    registry::ServiceNumber,
};

/// The services whose leases a session remembers its decision for. Beyond, it decides again.
const DECIDED_MAX: usize = 4_096;

/// The caller of a request. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Caller(Option<Arc<Session>>);

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
        Self(None)
    }

    pub(super) fn new(session: Session) -> Self {
        Self(Some(Arc::new(session)))
    }

    /// Returns the epoch in force; 0 without a policy.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.0.as_ref().map_or(0, |session| session.epoch())
    }

    /// Checks that the identity is valid now.
    ///
    /// Errors: it was refused, or is not valid any more.
    pub(crate) fn check(&self) -> Result<(), AccessError> {
        let Some(session) = &self.0 else { return Ok(()) };
        let judgement = session.judgement();
        match valid(session, &judgement) {
            Ok(_) => Ok(()),
            Err(reason) => refuse(&judgement, reason.into()),
        }
    }

    /// Checks that the caller has proved an identity.
    pub(crate) fn check_known(&self) -> Result<(), AccessError> {
        let Some(session) = &self.0 else { return Ok(()) };
        let judgement = session.judgement();
        match valid(session, &judgement) {
            Ok((authentication, _)) if authentication.principal.is_anonymous() => {
                refuse(&judgement, Unauthenticated::NoCredentials.into())
            }
            Ok(_) => Ok(()),
            Err(reason) => refuse(&judgement, reason.into()),
        }
    }

    /// Checks that the caller may read the server's health, as each known one may.
    pub(crate) fn check_probe(&self) -> Result<(), AccessError> {
        let Some(session) = &self.0 else { return Ok(()) };
        match valid(session, &session.judgement()) {
            Ok((authentication, _)) if !authentication.principal.is_anonymous() => Ok(()),
            _ => self.decide(Action::Probe, Scope::Server),
        }
    }

    /// Checks that the caller may discover some service, before its request is read.
    pub(crate) fn check_discovery(&self) -> Result<(), AccessError> {
        let Some(session) = &self.0 else { return Ok(()) };
        let judgement = session.judgement();
        match valid(session, &judgement) {
            Ok((authentication, grants))
                if authentication.principal.is_anonymous() && !grants.gives(Action::Discover) =>
            {
                refuse(&judgement, Unauthenticated::NoCredentials.into())
            }
            Ok(_) => Ok(()),
            Err(reason) => refuse(&judgement, reason.into()),
        }
    }

    /// Allows to register an instance of a service at a host.
    pub fn register(
        &self,
        service: ServiceKey,
        host: &Host,
    ) -> Result<Permit<RegisterService>, AccessError> {
        if let Some(session) = &self.0 {
            let judgement = session.judgement();
            let decided = self.judged(session, &judgement).and_then(|(authentication, grants)| {
                let denied = match grants.decide_register(&service, host, session.peer) {
                    Ok(_rule) => return Ok(()),
                    Err(RegisterDenied::NotAllowed) => {
                        not_allowed(authentication, Action::Register, Scope::Service(&service))
                    }
                    Err(RegisterDenied::Host(reason)) => AccessError::HostNotAllowed {
                        principal: authentication.principal.clone(),
                        service: service.clone(),
                        reason: reason.to_string(),
                    },
                };
                Err(denied)
            });
            decided.or_else(|error| refuse(&judgement, error))?;
        }
        Ok(Permit::new(RegisterService(service)))
    }

    /// Allows to change or remove instances of a service by their identities.
    pub fn operate(&self, service: ServiceKey) -> Result<Permit<OperateService>, AccessError> {
        self.decide(Action::Operate, Scope::Service(&service))?;
        Ok(Permit::new(OperateService(service)))
    }

    /// Allows to remove the instances that protection holds in a namespace.
    pub fn release(&self, namespace: Name) -> Result<Permit<ReleaseNamespace>, AccessError> {
        self.decide(Action::Operate, Scope::Namespace(&namespace))?;
        Ok(Permit::new(ReleaseNamespace(namespace)))
    }

    /// Allows to read the instances of a service.
    pub fn discover(&self, service: ServiceKey) -> Result<Permit<DiscoverService>, AccessError> {
        self.decide(Action::Discover, Scope::Service(&service))?;
        Ok(Permit::new(DiscoverService(service)))
    }

    /// Allows to list the services of a namespace that the caller may discover.
    pub fn list(&self, namespace: Name) -> Result<Permit<ListNamespace>, AccessError> {
        let sight = self.sight(&namespace)?;
        Ok(Permit::new(ListNamespace { namespace, sight }))
    }

    /// Allows to watch services.
    pub fn watch(&self, subjects: WatchTarget) -> Result<Permit<WatchScope>, AccessError> {
        let scope = match subjects {
            WatchTarget::Services(keys) => {
                for key in &keys {
                    self.decide(Action::Discover, Scope::Service(key))?;
                }
                WatchScope::Services(keys)
            }
            WatchTarget::Namespace(namespace) => {
                let sight = self.sight(&namespace)?;
                WatchScope::Namespace(namespace, sight)
            }
        };
        Ok(Permit::new(scope))
    }

    /// Allows to read the status of the server.
    pub fn read_status(&self) -> Result<Permit<ReadStatus>, AccessError> {
        self.decide(Action::Status, Scope::Server)?;
        Ok(Permit::new(ReadStatus(())))
    }

    /// Allows to copy the store.
    pub fn copy_store(&self) -> Result<Permit<CopyStore>, AccessError> {
        self.decide(Action::Backup, Scope::Server)?;
        Ok(Permit::new(CopyStore(())))
    }

    /// Returns the decisions on leases, for one part of a heartbeat.
    pub(crate) fn lease_rights(&self) -> LeaseRights<'_> {
        let Some(session) = &self.0 else { return LeaseRights(LeaseRange::All) };
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
        let Some(session) = &self.0 else { return true };
        let judgement = session.judgement();
        let valid = valid(session, &judgement);
        valid.is_ok_and(|(authentication, _)| !authentication.principal.is_anonymous())
    }

    /// Returns the identity; `None` without a policy, or if it is not valid.
    pub(crate) fn identity(&self) -> Option<CallerIdentity> {
        let session = self.0.as_ref()?;
        let judgement = session.judgement();
        let (authentication, grants) = valid(session, &judgement).ok()?.clone();
        Some(CallerIdentity { authentication, grants, epoch: judgement.epoch })
    }

    /// Returns whether no call or stream has this caller.
    pub(super) fn is_unused(&self) -> bool {
        self.0.as_ref().is_some_and(|session| Arc::strong_count(session) == 1)
    }

    /// Returns whether the credentials were accepted.
    pub(super) fn is_identified(&self) -> bool {
        self.0.as_ref().is_none_or(|session| session.judgement().outcome.is_ok())
    }

    /// Returns the time until the identity ends; `None` if it does not, or has.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let session = self.0.as_ref()?;
        session.time_left(session.judgement().deadline?)
    }

    fn sight(&self, namespace: &Name) -> Result<Sight, AccessError> {
        let Some(session) = &self.0 else { return Ok(Sight::whole()) };
        let judgement = session.judgement();
        let sight = self.judged(session, &judgement).and_then(|(authentication, grants)| {
            grants.sight(namespace).ok_or_else(|| {
                not_allowed(authentication, Action::Discover, Scope::Namespace(namespace))
            })
        });
        sight.or_else(|error| refuse(&judgement, error).map(|()| Sight::whole()))
    }

    fn decide(&self, action: Action, scope: Scope<'_>) -> Result<(), AccessError> {
        let Some(session) = &self.0 else { return Ok(()) };
        let judgement = session.judgement();
        let decided = self.judged(session, &judgement).and_then(|(authentication, grants)| {
            let denied = |_| not_allowed(authentication, action, scope);
            grants.decide(action, scope).map(|RuleLine(_)| ()).map_err(denied)
        });
        decided.or_else(|error| refuse(&judgement, error))
    }

    fn judged<'a>(
        &self,
        session: &Session,
        judgement: &'a Judgement,
    ) -> Result<&'a (Authentication, Grants), AccessError> {
        valid(session, judgement).map_err(AccessError::Unauthenticated)
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

fn not_allowed(authentication: &Authentication, action: Action, scope: Scope<'_>) -> AccessError {
    if authentication.principal.is_anonymous() {
        return Unauthenticated::NoCredentials.into();
    }
    let object = match scope {
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

/// Refuses, unless the policy is not enforced.
fn refuse(judgement: &Judgement, error: AccessError) -> Result<(), AccessError> {
    match judgement.enforcement {
        Enforcement::Refuse => Err(error),
        Enforcement::LogOnly => {
            warn!(reason = error.reason(), %error, "policy not enforced, request let through");
            Ok(())
        }
    }
}

/// The decisions on leases by the services that they belong to. Must not live across an `await`.
#[derive(Debug)]
pub(crate) struct LeaseRights<'a>(LeaseRange<'a>);

#[derive(Debug)]
enum LeaseRange<'a> {
    All,
    /// The identity is no longer valid.
    Nothing,
    /// Those of some services.
    Some {
        judgement: Arc<Judgement>,
        memory: MutexGuard<'a, LeaseMemory>,
    },
}

impl LeaseRights<'_> {
    /// Returns whether the caller may renew every lease.
    pub(crate) fn is_unrestricted(&self) -> bool {
        matches!(self.0, LeaseRange::All)
    }

    /// Returns whether the caller may renew the leases of the service with this number, whose name
    /// `key` returns.
    #[inline]
    pub(crate) fn allow(
        &mut self,
        service: ServiceNumber,
        key: impl FnOnce(ServiceNumber) -> Option<Arc<ServiceKey>>,
    ) -> bool {
        let (judgement, memory) = match &mut self.0 {
            LeaseRange::All => return true,
            LeaseRange::Nothing => return false,
            LeaseRange::Some { judgement, memory } => (judgement, memory),
        };
        if let Some((latest, allowed)) = memory.latest
            && latest == service
        {
            return allowed;
        }
        let allowed = match memory.decided.get(&service) {
            Some(allowed) => *allowed,
            None => {
                let Some(key) = key(service) else { return false };
                let scope = Scope::Service(&key);
                let allowed = judgement
                    .outcome
                    .as_ref()
                    .is_ok_and(|(_, grants)| grants.decide(Action::Register, scope).is_ok());
                if memory.decided.len() >= DECIDED_MAX {
                    memory.decided.clear();
                }
                memory.decided.insert(service, allowed);
                allowed
            }
        };
        memory.latest = Some((service, allowed));
        allowed
    }
}
