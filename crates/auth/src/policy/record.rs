//! A use that an audit record has, to be decided again by another policy.
//!
//! Pure.

use thiserror::Error;
use waypost_core::model::{Name, NameError, ServiceKey};

use super::{
    action::{Action, Scope, UnknownAction},
    explanation::PrincipalState,
    grants::{Denied, RuleLine},
    principal::{InvalidPrincipal, Principal},
    whole::Policy,
};

/// A use of the registry: a principal, an action and its place.
///
/// ```
/// use std::path::Path;
/// use waypost_auth::policy::{Denied, Policy, RecordedUse, RuleLine};
///
/// let policy = "[[allow]]\nwho = 'dns/*'\nmay = 'discover'\non = 'shop/*'";
/// let policy = Policy::parse(policy, Path::new("."))?;
/// let orders = RecordedUse::parse("dns/a", "discover", Some("shop"), Some("orders"))?;
/// assert_eq!(policy.decide_again(&orders), Ok(RuleLine(1)));
/// let whole = RecordedUse::parse("dns/a", "discover", Some("other"), None)?;
/// assert_eq!(policy.decide_again(&whole), Err(Denied));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedUse {
    principal: Principal,
    action: Action,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Server,
    Namespace(Name),
    Service(ServiceKey),
}

/// The fields of a record are not those of a use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidRecord {
    /// The principal is invalid.
    #[error("principal: {0}")]
    Principal(#[from] InvalidPrincipal),
    /// The action is unknown.
    #[error("action: {0}")]
    Action(#[from] UnknownAction),
    /// The namespace is invalid.
    #[error("namespace: {0}")]
    Namespace(NameError),
    /// The service is invalid.
    #[error("service: {0}")]
    Service(NameError),
    /// The service has no namespace.
    #[error("namespace: is missing, and there is a service")]
    NoNamespace,
}

impl RecordedUse {
    /// Parses the fields of a record. Without a service, the use is on the namespace; without a
    /// namespace, on the server.
    ///
    /// # Errors
    /// A field is invalid.
    pub fn parse(
        principal: &str,
        action: &str,
        namespace: Option<&str>,
        service: Option<&str>,
    ) -> Result<Self, InvalidRecord> {
        let namespace = namespace.map(|text| text.parse().map_err(InvalidRecord::Namespace));
        let service = service.map(|text| text.parse().map_err(InvalidRecord::Service));
        let place = match (namespace.transpose()?, service.transpose()?) {
            (Some(namespace), Some(service)) => Place::Service(ServiceKey { namespace, service }),
            (Some(namespace), None) => Place::Namespace(namespace),
            (None, None) => Place::Server,
            (None, Some(_)) => return Err(InvalidRecord::NoNamespace),
        };
        Ok(Self { principal: Principal::parse(principal)?, action: action.parse()?, place })
    }

    /// Returns the principal.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Returns the action.
    #[must_use]
    pub fn action(&self) -> Action {
        self.action
    }

    /// Returns the part of the registry that the action is on.
    #[must_use]
    pub fn scope(&self) -> Scope<'_> {
        match &self.place {
            Place::Server => Scope::Server,
            Place::Namespace(namespace) => Scope::Namespace(namespace),
            Place::Service(key) => Scope::Service(key),
        }
    }
}

impl Policy {
    /// Decides a recorded use by this policy. A lookup of a namespace is allowed if some of its
    /// services may be discovered, since it is cut to these. Records have no hosts, so `hosts` of
    /// registrations are not considered.
    ///
    /// # Errors
    /// No rule allows it, or the principal is revoked or unknown.
    pub fn decide_again(&self, recorded: &RecordedUse) -> Result<RuleLine, Denied> {
        if self.state(&recorded.principal) != PrincipalState::Provable {
            return Err(Denied);
        }
        let grants = self.grants(&recorded.principal);
        match (recorded.action, &recorded.place) {
            (Action::Discover, Place::Namespace(namespace)) => {
                grants.decide_any(Action::Discover, namespace)
            }
            (action, _) => grants.decide(action, recorded.scope()),
        }
    }
}
