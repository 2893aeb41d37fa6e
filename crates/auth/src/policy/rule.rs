//! A rule of the policy (`[[allow]]`), and the rights that it gives one principal.
//!
//! Pure.

use std::sync::Arc;

use super::{
    action::Actions,
    grants::{RuleLine, Target, host::HostRule},
    pattern::{Captures, PrincipalPattern, TargetPattern},
    principal::Principal,
};

/// A rule of the policy.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) line: RuleLine,
    pub(super) who: Vec<PrincipalPattern>,
    pub(super) actions: Actions,
    pub(super) on: Vec<TargetPattern>,
    /// `None`: at every host.
    pub(super) hosts: Option<Arc<[HostRule]>>,
}

impl Rule {
    /// Returns the rights of a principal by this rule.
    pub(super) fn targets(&self, principal: &Principal) -> Vec<Target> {
        let (mut done, mut targets): (Vec<Captures<'_>>, _) = (Vec::new(), Vec::new());
        for pattern in &self.who {
            let captures = pattern.captures(principal.as_str());
            let Some(captures) = captures.filter(|one| one.are_names() && !done.contains(one))
            else {
                continue;
            };
            done.push(captures);
            let filled = self.on.iter().filter_map(|pattern| pattern.fill(captures));
            targets.extend(filled.map(|(namespace, service)| Target {
                line: self.line,
                actions: self.actions,
                namespace,
                service,
                hosts: self.hosts.clone(),
            }));
        }
        targets
    }
}
