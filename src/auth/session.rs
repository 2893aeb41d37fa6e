//! A session: one credential on one connection, judged when it begins and anew at each epoch.
//!
//! Invariant: a step of the wall clock ends no session. Its time is the wall time at its start plus
//! the monotonic time since.

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use parking_lot::Mutex;
use waypost_auth::{
    certificate::PeerCertificate,
    policy::{Authentication, Grants, Policy, Principal, Unauthenticated, Via},
};

use super::{
    audit::{AuditKind, AuditOutcome, AuditRecord},
    error::AccessError,
    quota::{ConnectionSlot, PrincipalQuota},
    trust::{Trust, TrustCell},
};
use crate::{clock::Clock, model::Tick, registry::ServiceNumber};

/// A credential on a connection.
pub(super) struct Session {
    trust: Arc<TrustCell>,
    clock: Clock,
    began: (Tick, SystemTime),
    credential: Credential,
    pub(super) peer: Option<IpAddr>,
    judgement: ArcSwap<Judgement>,
    /// The decisions on leases. Locked for a part of a heartbeat at a time.
    pub(super) leases: Mutex<LeaseMemory>,
    /// Counts the connection, once it is used.
    pub(super) connection: OnceLock<ConnectionSlot>,
}

/// What a session proves its identity with.
#[derive(Debug)]
pub(super) enum Credential {
    Anonymous,
    /// The value of `authorization`, which is marked as sensitive, and the certificate beside it.
    Token(HeaderValue, Option<Arc<PeerCertificate>>),
    /// The certificate of the connection.
    Certificate(Arc<PeerCertificate>),
}

/// What one epoch decided on a session.
#[derive(Debug)]
pub(super) struct Judgement {
    pub(super) epoch: u64,
    pub(super) enforcement: Enforcement,
    /// The identity and its rights.
    pub(super) outcome: Result<(Authentication, Grants), Unauthenticated>,
    /// The end of the credential.
    pub(super) deadline: Option<Tick>,
    /// The limits of the identity.
    pub(super) quota: Option<PrincipalQuota>,
    pub(super) policy: Arc<Policy>,
}

/// What follows from a decision against a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Enforcement {
    Refuse,
    /// The policy has `enforce = false`.
    LogOnly,
}

/// The decisions of an epoch on the leases of services.
#[derive(Debug, Default)]
pub(super) struct LeaseMemory {
    pub(super) epoch: u64,
    /// The decision for the latest lease: those of a heartbeat are often of one service.
    pub(super) latest: Option<(ServiceNumber, bool)>,
    pub(super) decided: HashMap<ServiceNumber, bool>,
}

impl Session {
    /// Starts a session, which may have been refused.
    pub(super) fn start(
        trust: Arc<TrustCell>,
        clock: Clock,
        credential: Credential,
        peer: Option<IpAddr>,
    ) -> Self {
        let now = clock.now();
        let began = (now.tick, SystemTime::UNIX_EPOCH + Duration::from_millis(now.wall.0));
        let version = trust.current();
        let judgement = judge((&trust, &version), &credential, began.0, began.1);
        Self {
            trust,
            clock,
            began,
            credential,
            peer,
            judgement: ArcSwap::from_pointee(judgement),
            leases: Mutex::default(),
            connection: OnceLock::new(),
        }
    }

    /// Returns the judgement of the present epoch.
    pub(super) fn judgement(&self) -> Arc<Judgement> {
        let judgement = self.judgement.load_full();
        if judgement.epoch == self.trust.epoch() {
            return judgement;
        }
        let version = self.trust.current();
        let tick = self.clock.tick();
        let since = Duration::from_millis(tick.0.saturating_sub(self.began.0.0));
        let judged =
            Arc::new(judge((&self.trust, &version), &self.credential, tick, self.began.1 + since));
        self.judgement.store(Arc::clone(&judged));
        judged
    }

    /// Returns the record of its start; `None` without a credential.
    pub(super) fn opening_record(&self) -> Option<AuditRecord> {
        let judgement = self.judgement();
        let (via, credential) = match &self.credential {
            Credential::Anonymous => return None,
            Credential::Token(..) => (None, None),
            Credential::Certificate(certificate) => {
                (Some(Via::Certificate), Some(fingerprint(certificate.sha256()).into()))
            }
        };
        Some(match &judgement.outcome {
            Ok((authentication, _)) => AuditRecord {
                principal: Some(authentication.principal.clone()),
                via: Some(authentication.via),
                credential: authentication.credential.as_deref().map(Into::into),
                epoch: Some(judgement.epoch),
                ..AuditRecord::new(AuditKind::Session, AuditOutcome::Allowed)
            },
            Err(reason) => {
                AuditRecord { via, credential, ..refused_session(judgement.epoch, *reason) }
            }
        })
    }

    /// Returns the epoch in force.
    pub(super) fn epoch(&self) -> u64 {
        self.trust.epoch()
    }

    /// Returns the present time of the clock.
    pub(super) fn tick(&self) -> Tick {
        self.clock.tick()
    }

    /// Returns the time until a deadline; `None` after it.
    pub(super) fn time_left(&self, deadline: Tick) -> Option<Duration> {
        let left = deadline.0.checked_sub(self.clock.tick().0)?;
        (left > 0).then(|| Duration::from_millis(left))
    }

    /// Returns whether a deadline has passed.
    pub(super) fn is_over(&self, deadline: Option<Tick>) -> bool {
        deadline.is_some_and(|deadline| self.clock.tick() >= deadline)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Session")
            .field("judgement", &self.judgement)
            .finish_non_exhaustive()
    }
}

/// Returns the record of a refused credential.
pub(super) fn refused_session(epoch: u64, reason: Unauthenticated) -> AuditRecord {
    let error = AccessError::from(reason);
    AuditRecord {
        code: Some(error.code()),
        reason: Some(error.reason()),
        epoch: Some(epoch),
        ..AuditRecord::new(AuditKind::Session, error.outcome())
    }
}

fn judge(
    (cell, trust): (&TrustCell, &Trust),
    credential: &Credential,
    tick: Tick,
    now: SystemTime,
) -> Judgement {
    let policy = &trust.policy;
    let authentication = authenticate(trust, credential, now);
    let outcome = authentication.map(|authentication| {
        let grants = policy.grants(&authentication.principal);
        (authentication, grants)
    });
    let certificate_ends = match credential {
        Credential::Token(_, Some(certificate)) => Some(certificate.not_after()),
        _ => None,
    };
    let ends = outcome.as_ref().ok().and_then(|(authentication, _)| authentication.ends);
    let ends = ends.into_iter().chain(certificate_ends).min();
    // A part of a millisecond counts as one: a deadline is never early.
    let deadline = ends.map(|ends| {
        let left = ends.duration_since(now).unwrap_or_default();
        Tick(tick.after(left).0 + 1)
    });
    let enforcement = if policy.is_enforced() { Enforcement::Refuse } else { Enforcement::LogOnly };
    let quota = outcome.as_ref().ok().map(|(authentication, _)| {
        let principal = &authentication.principal;
        cell.quotas().of(principal, policy.principal_limits(principal), tick)
    });
    let policy = Arc::clone(policy);
    Judgement { epoch: trust.epoch, enforcement, outcome, deadline, quota, policy }
}

/// Returns the first 16 hexadecimal digits of a certificate's SHA-256.
fn fingerprint(sha256: &[u8; 32]) -> Box<str> {
    sha256[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

/// Checks that a certificate is one that callers may have, whatever it names.
fn check_certificate(
    trust: &Trust,
    certificate: &PeerCertificate,
    now: SystemTime,
) -> Result<(), Unauthenticated> {
    let tls = trust.tls.as_ref().ok_or(Unauthenticated::CertificateNotTrusted)?;
    tls.roots().verify(certificate, now)?;
    if trust.policy.revokes_certificate(certificate.sha256()) {
        return Err(Unauthenticated::Revoked);
    }
    Ok(())
}

fn authenticate(
    trust: &Trust,
    credential: &Credential,
    now: SystemTime,
) -> Result<Authentication, Unauthenticated> {
    let policy = &trust.policy;
    let authentication = match credential {
        Credential::Anonymous => Authentication {
            principal: Principal::anonymous(),
            via: Via::Anonymous,
            credential: None,
            ends: None,
        },
        Credential::Token(value, certificate) => {
            if let Some(certificate) = certificate {
                check_certificate(trust, certificate, now)?;
            }
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value.clone())]);
            policy.authenticate(&headers, now)?.ok_or(Unauthenticated::NoCredentials)?
        }
        Credential::Certificate(certificate) => {
            check_certificate(trust, certificate, now)?;
            Authentication {
                principal: certificate.principal()?,
                via: Via::Certificate,
                credential: Some(fingerprint(certificate.sha256())),
                ends: Some(certificate.not_after()),
            }
        }
    };
    if policy.revokes(&authentication.principal) {
        return Err(Unauthenticated::Revoked);
    }
    Ok(authentication)
}
