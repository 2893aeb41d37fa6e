//! The services that a decision is on: `NAMESPACE/SERVICE`, `NAMESPACE/*` or `*/*`.
//!
//! Pure.

use std::{fmt, str::FromStr};

use waypost_auth::policy::Scope;

use crate::model::{Name, ServiceKey};

/// The services that a decision is on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum TargetArgument {
    Server,
    Namespace(Name),
    Service(ServiceKey),
}

impl FromStr for TargetArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || "must be NAMESPACE/SERVICE, NAMESPACE/* or */*".to_owned();
        let name = |text: &str| text.parse::<Name>().map_err(|reason| format!("'{text}' {reason}"));
        match text.split_once('/').ok_or_else(form)? {
            ("*", "*") => Ok(Self::Server),
            ("*", _) => Err(form()),
            (namespace, "*") => Ok(Self::Namespace(name(namespace)?)),
            (namespace, service) => Ok(Self::Service(ServiceKey {
                namespace: name(namespace)?,
                service: name(service)?,
            })),
        }
    }
}

impl TargetArgument {
    pub(super) fn scope(&self) -> Scope<'_> {
        match self {
            Self::Server => Scope::Server,
            Self::Namespace(namespace) => Scope::Namespace(namespace),
            Self::Service(key) => Scope::Service(key),
        }
    }
}

impl From<Scope<'_>> for TargetArgument {
    fn from(scope: Scope<'_>) -> Self {
        match scope {
            Scope::Server => Self::Server,
            Scope::Namespace(namespace) => Self::Namespace(namespace.clone()),
            Scope::Service(key) => Self::Service(key.clone()),
        }
    }
}

impl fmt::Display for TargetArgument {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server => formatter.write_str("*/*"),
            Self::Namespace(namespace) => write!(formatter, "{namespace}/*"),
            Self::Service(key) => write!(formatter, "{key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_three_forms() {
        for text in ["shop/orders", "shop/*", "*/*"] {
            let target = text.parse::<TargetArgument>().unwrap();
            assert_eq!(target.to_string(), text);
            assert_eq!(TargetArgument::from(target.scope()), target);
        }
        for text in ["", "shop", "/", "shop/", "/orders", "*/orders", "a/b/c", "shop/-", "a/b*"] {
            assert!(text.parse::<TargetArgument>().is_err(), "{text}");
        }
    }
}
