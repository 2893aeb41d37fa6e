//! The reasons to refuse a caller.
//!
//! Pure. The texts are fixed but for the names in them: no part of a credential can be in them.

use std::time::Duration;

use thiserror::Error;
use waypost_auth::policy::{Action, Principal, Unauthenticated};

use super::{
    audit::AuditOutcome,
    quota::{OverLimit, PrincipalLimit},
};
use crate::model::{Name, ServiceKey};

/// The most bytes of a principal in a message.
const PRINCIPAL_BYTES_MAX: usize = 256;

/// The reason to refuse a caller or its act.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AccessError {
    /// The caller proved no identity, or one that is no longer valid.
    #[error(transparent)]
    Unauthenticated(#[from] Unauthenticated),
    /// The caller is known, and no rule allows the act.
    #[error("{} may not {action} {object}: no rule of the policy allows it", shortened(principal))]
    NotAllowed {
        /// The caller.
        principal: Principal,
        /// The right that it lacks.
        action: ActionName,
        /// The object of the act.
        object: AccessObject,
    },
    /// The caller may register the service, but not at this host.
    #[error("{} may not register {service} at this host: {reason}", shortened(principal))]
    HostNotAllowed {
        /// The caller.
        principal: Principal,
        /// The service.
        service: ServiceKey,
        /// The reason.
        reason: String,
    },
    /// The caller is over a limit of its own.
    #[error("{} is over its limit of {limit}", shortened(principal))]
    Limited {
        /// The caller.
        principal: Principal,
        /// The limit.
        limit: PrincipalLimit,
        /// The time after which there is room again, or may be.
        retry: Duration,
    },
    /// A request to loopback that names another host, or comes from a page of one.
    #[error(
        "this server is for programs on its machine: the authority and the origin of a request \
         must be localhost or a loopback address"
    )]
    WrongAuthority,
}

/// An [`Action`] in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionName(pub Action);

/// The object of an act in messages and error details.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessObject {
    /// The server.
    Server,
    /// A namespace.
    Namespace(Name),
    /// A service.
    Service(ServiceKey),
}

impl std::fmt::Display for ActionName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self.0 {
            Action::Probe => "probe",
            Action::Discover => "discover",
            Action::Register => "register",
            Action::Operate => "operate on",
            Action::Status => "read the status of",
            Action::Backup => "copy the store of",
        })
    }
}

impl std::fmt::Display for AccessObject {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Server => formatter.write_str("this server"),
            Self::Namespace(namespace) => write!(formatter, "namespace {namespace}"),
            Self::Service(service) => write!(formatter, "{service}"),
        }
    }
}

/// Returns the principal, or the most of it that fits into a message.
fn shortened(principal: &Principal) -> &str {
    // A principal is ASCII.
    principal.as_str().get(..PRINCIPAL_BYTES_MAX).unwrap_or(principal.as_str())
}

impl AccessError {
    /// The refusal of a principal that is over a limit.
    pub(super) fn over_limit(principal: &Principal, over: OverLimit) -> Self {
        let OverLimit { limit, retry } = over;
        Self::Limited { principal: principal.clone(), limit, retry }
    }

    /// Returns the name of the gRPC status.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Unauthenticated(_) => "UNAUTHENTICATED",
            Self::Limited { .. } => "RESOURCE_EXHAUSTED",
            Self::NotAllowed { .. } | Self::HostNotAllowed { .. } | Self::WrongAuthority => {
                "PERMISSION_DENIED"
            }
        }
    }

    /// Returns what the audit log has of it.
    pub(super) fn outcome(&self) -> AuditOutcome {
        match self {
            Self::Unauthenticated(_) => AuditOutcome::Unauthenticated,
            Self::Limited { .. } => AuditOutcome::Limited,
            Self::NotAllowed { .. } | Self::HostNotAllowed { .. } | Self::WrongAuthority => {
                AuditOutcome::Denied
            }
        }
    }

    /// Returns the reason as a machine reads it, in upper case.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unauthenticated(reason) => reason.reason(),
            Self::NotAllowed { .. } => "NOT_ALLOWED",
            Self::HostNotAllowed { .. } => "HOST_NOT_ALLOWED",
            Self::WrongAuthority => "WRONG_AUTHORITY",
            Self::Limited { limit, .. } => limit.reason(),
        }
    }
}
