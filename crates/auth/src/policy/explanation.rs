//! Explanations of decisions, for the operators of a policy.
//!
//! Pure.

use super::{
    action::{Action, Scope},
    grants::{Denied, RuleLine},
    principal::Principal,
    rule::Rule,
    whole::Policy,
};

/// The reason why a principal may or may not do something.
///
/// ```
/// use std::path::Path;
/// use waypost_auth::policy::{Action, Policy, Principal, RuleLine, RuleOutcome, Scope};
///
/// let policy = "[[allow]]\nwho = 'dns/*'\nmay = 'discover'\non = 'shop/*'";
/// let policy = Policy::parse(policy, Path::new("."))?;
/// let explanation = policy.explain(&Principal::parse("dns/a")?, Action::Discover, Scope::Server);
/// assert!(explanation.decision.is_err());
/// let [rule] = explanation.rules.as_slice() else { panic!("one rule is for the principal") };
/// assert_eq!((rule.line, rule.who.as_str()), (RuleLine(1), "dns/*"));
/// assert_eq!(rule.outcome, RuleOutcome::OtherServices(vec!["shop/*".to_owned()]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The line of the first rule that allows it.
    pub decision: Result<RuleLine, Denied>,
    /// The state of the principal in this policy.
    pub principal: PrincipalState,
    /// The rules whose `who` fits the principal, in the order of the file.
    pub rules: Vec<RuleMatch>,
}

/// The state of a principal in a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrincipalState {
    /// A credential can prove it.
    Provable,
    /// No token or issuer of the policy has this name.
    Unknown,
    /// `revoked` lists it.
    Revoked,
}

/// A rule whose `who` fits a principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleMatch {
    /// The line of the rule.
    pub line: RuleLine,
    /// The first pattern of `who` that fits.
    pub who: String,
    /// The result of the rule.
    pub outcome: RuleOutcome,
}

/// The result of a rule for one action on one part of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleOutcome {
    /// The rule allows it.
    Allows,
    /// The rule is for these actions.
    OtherActions(Vec<Action>),
    /// The rule is for these services, after captures were filled in.
    OtherServices(Vec<String>),
    /// The rule does not hold: a capture is no valid name.
    InvalidCapture,
}

impl Policy {
    /// Explains the decision on an action: the line that allows it, and each rule that is for the
    /// principal. `hosts` of registrations are not considered.
    #[must_use]
    pub fn explain(&self, principal: &Principal, action: Action, scope: Scope<'_>) -> Explanation {
        let state = self.state(principal);
        let explain = |rule: &Rule| rule.explain(principal, action, scope);
        Explanation {
            decision: match state {
                PrincipalState::Provable => self.grants(principal).decide(action, scope),
                PrincipalState::Unknown | PrincipalState::Revoked => Err(Denied),
            },
            principal: state,
            rules: self.rules.iter().filter_map(explain).collect(),
        }
    }

    /// Returns the state of a principal.
    #[must_use]
    pub fn state(&self, principal: &Principal) -> PrincipalState {
        let text = principal.as_str();
        let is_known = if text.starts_with("token/") {
            self.tokens.principals().contains(principal)
        } else if principal.is_anonymous()
            || ["spiffe://", "dns/"].iter().any(|start| text.starts_with(start))
        {
            true
        } else {
            let issuer = text.split_once('/').map(|(issuer, _)| issuer);
            self.issuers.iter().any(|known| Some(&*known.name) == issuer)
        };
        match is_known {
            _ if self.revokes(principal) => PrincipalState::Revoked,
            true => PrincipalState::Provable,
            false => PrincipalState::Unknown,
        }
    }
}

impl Rule {
    /// Explains the result for a principal; `None` if the rule is for others.
    fn explain(
        &self,
        principal: &Principal,
        action: Action,
        scope: Scope<'_>,
    ) -> Option<RuleMatch> {
        let fits = self.who.iter().filter_map(|pattern| {
            pattern.captures(principal.as_str()).map(|captures| (pattern, captures))
        });
        let fits: Vec<_> = fits.collect();
        let (who, _) = fits.first()?;
        let targets = self.targets(principal);
        let outcome = if !fits.iter().any(|(_, captures)| captures.are_names()) {
            RuleOutcome::InvalidCapture
        } else if !self.actions.contains(action) {
            RuleOutcome::OtherActions(self.actions.iter().collect())
        } else if targets.iter().any(|target| target.includes(scope)) {
            RuleOutcome::Allows
        } else {
            RuleOutcome::OtherServices(targets.into_iter().map(|one| one.describe().on).collect())
        };
        Some(RuleMatch { line: self.line, who: who.as_str().to_owned(), outcome })
    }
}
