//! The rights of one principal: made once a session from the policy, used for each decision.
//!
//! `host` judges the hosts of registrations, `sight` is a namespace as the principal sees it.
//! Pure. Invariant: a decision allocates nothing, and depends on names alone, never on the
//! instances that exist.

pub(super) mod host;
mod sight;

use std::{net::IpAddr, sync::Arc};

use thiserror::Error;
use waypost_core::model::{Host, Name, ServiceKey};

use self::host::{HostRule, JudgedHost};
pub use self::{host::HostRefusal, sight::Sight};
use super::{
    action::{Action, Actions, Scope},
    pattern::NamePart,
};

/// The line, counted from 1, of the rule that allows an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleLine(pub u32);

impl RuleLine {
    /// The line of rights that no rule of a file gives: those without a policy, and `probe`, which
    /// every known caller has.
    pub const BUILT_IN: Self = Self(0);
}

/// No rule allows the action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no rule of the policy allows it")]
pub struct Denied;

/// The reason why an instance may not be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RegisterDenied {
    /// No rule allows `register` on the service.
    #[error("no rule of the policy allows it")]
    NotAllowed,
    /// Rules allow the service, and not at this host.
    #[error(transparent)]
    Host(HostRefusal),
}

/// The rights of one principal. Cheap to clone.
///
/// A decision scans the targets that the principal's rules have, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants(Rights);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rights {
    /// There is no policy.
    Unrestricted,
    /// Those of rules.
    Rules { probe: Option<RuleLine>, targets: Arc<[Target]> },
}

/// The services that a rule allows one principal, with the actions on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) line: RuleLine,
    pub(super) actions: Actions,
    pub(super) namespace: NamePart,
    pub(super) service: NamePart,
    /// `None`: at every host.
    pub(super) hosts: Option<Arc<[HostRule]>>,
}

/// One right of a principal, for display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The line of the rule that gives it.
    pub line: RuleLine,
    /// The actions.
    pub actions: Vec<Action>,
    /// The services, such as `shop/*`; `*/*` for actions on the server.
    pub on: String,
    /// The hosts of registrations, such as `peer` and `10.0.0.0/8`; `None`: no rule limits them.
    pub hosts: Option<Vec<String>>,
}

impl Grants {
    /// Returns the rights of every caller where there is no policy: all of them.
    #[must_use]
    pub fn unrestricted() -> Self {
        Self(Rights::Unrestricted)
    }

    /// Builds the rights of rules, in the order of the file. A known caller may `probe`.
    pub(super) fn of_rules(is_known: bool, targets: Vec<Target>) -> Self {
        let probe = if is_known { Some(RuleLine::BUILT_IN) } else { None };
        Self(Rights::Rules { probe, targets: targets.into() })
    }

    /// Returns the line of the first rule that allows an action.
    ///
    /// # Errors
    /// No rule allows it.
    #[inline]
    pub fn decide(&self, action: Action, scope: Scope<'_>) -> Result<RuleLine, Denied> {
        let Rights::Rules { probe, targets } = &self.0 else { return Ok(RuleLine::BUILT_IN) };
        if let (Action::Probe, Some(line)) = (action, probe) {
            return Ok(*line);
        }
        let allows = |target: &&Target| target.actions.contains(action) && target.includes(scope);
        targets.iter().find(allows).map(|target| target.line).ok_or(Denied)
    }

    /// Returns the line of the first rule that allows an action on some services of a namespace.
    ///
    /// # Errors
    /// No rule allows it on any.
    pub fn decide_any(&self, action: Action, namespace: &Name) -> Result<RuleLine, Denied> {
        let Rights::Rules { targets, .. } = &self.0 else { return Ok(RuleLine::BUILT_IN) };
        let allows = |target: &&Target| {
            target.actions.contains(action) && target.namespace.includes(namespace)
        };
        targets.iter().find(allows).map(|target| target.line).ok_or(Denied)
    }

    /// Returns the line of the first rule that allows to register an instance of a service at a
    /// host, for a caller that calls from the address `peer`.
    ///
    /// # Errors
    /// No rule allows the service, or none of those that do allows the host.
    pub fn decide_register(
        &self,
        service: &ServiceKey,
        host: &Host,
        peer: Option<IpAddr>,
    ) -> Result<RuleLine, RegisterDenied> {
        let Rights::Rules { targets, .. } = &self.0 else { return Ok(RuleLine::BUILT_IN) };
        let mut rules = targets
            .iter()
            .filter(|target| target.actions.contains(Action::Register))
            .filter(|target| target.includes(Scope::Service(service)))
            .peekable();
        if rules.peek().is_none() {
            return Err(RegisterDenied::NotAllowed);
        }
        let host = JudgedHost::new(host, peer).map_err(RegisterDenied::Host)?;
        rules
            .find(|target| target.hosts.as_ref().is_none_or(|hosts| host.is_one_of(hosts)))
            .map(|target| target.line)
            .ok_or(RegisterDenied::Host(HostRefusal::NotListed))
    }

    /// Returns the part of a namespace that may be discovered; `None` if that is nothing.
    #[must_use]
    pub fn sight(&self, namespace: &Name) -> Option<Sight> {
        let Rights::Rules { targets, .. } = &self.0 else { return Some(Sight::whole()) };
        let visible = targets
            .iter()
            .filter(|target| target.actions.contains(Action::Discover))
            .filter(|target| target.namespace.includes(namespace));
        Sight::of(visible.map(|target| target.service.clone()))
    }

    /// Returns whether an action is allowed on some service.
    #[must_use]
    pub fn gives(&self, action: Action) -> bool {
        match &self.0 {
            Rights::Unrestricted => true,
            Rights::Rules { targets, .. } => {
                targets.iter().any(|target| target.actions.contains(action))
            }
        }
    }

    /// Returns whether an action is allowed on every service.
    #[must_use]
    pub fn is_unrestricted(&self, action: Action) -> bool {
        self.decide(action, Scope::Server).is_ok()
    }

    /// Lists the rights, in the order of the file; one on everything without a policy.
    #[must_use]
    pub fn describe(&self) -> Vec<Grant> {
        let grant = |line, actions, on: String, hosts| Grant { line, actions, on, hosts };
        match &self.0 {
            Rights::Unrestricted => {
                vec![grant(RuleLine::BUILT_IN, Action::ALL.to_vec(), "*/*".to_owned(), None)]
            }
            Rights::Rules { probe, targets } => {
                let probe = probe.map(|line| grant(line, vec![Action::Probe], "*/*".into(), None));
                let targets = targets.iter().map(Target::describe);
                probe.into_iter().chain(targets).collect()
            }
        }
    }
}

impl Target {
    pub(super) fn includes(&self, scope: Scope<'_>) -> bool {
        match scope {
            Scope::Service(key) => {
                self.service.includes(&key.service) && self.namespace.includes(&key.namespace)
            }
            Scope::Namespace(namespace) => {
                self.service == NamePart::Any && self.namespace.includes(namespace)
            }
            Scope::Server => self.service == NamePart::Any && self.namespace == NamePart::Any,
        }
    }

    pub(super) fn describe(&self) -> Grant {
        let hosts = self.hosts.as_ref();
        Grant {
            line: self.line,
            actions: self.actions.iter().collect(),
            on: format!("{}/{}", self.namespace, self.service),
            hosts: hosts.map(|hosts| hosts.iter().map(ToString::to_string).collect()),
        }
    }
}
