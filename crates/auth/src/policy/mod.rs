//! The policy: which caller may do which action on which services.
//!
//! From the top: `explanation` and `record`, decisions for operators; `file`, the reader; `whole`,
//! the policy with its `rule`s, static `token`s, `issuer`s and `limits`; `grants`, the rights of
//! one principal, by which each use is decided; `pattern`; and the nouns `authentication`,
//! `principal` and `action`.
//! Pure, but for the files that the policy names: the caller passes the time in.
//!
//! Invariant: rules only allow, so their order decides nothing, and nothing unknown is allowed.
//!
//! ```
//! use std::path::Path;
//! use waypost_auth::policy::{Action, Denied, Policy, Principal, RuleLine, Scope};
//! use waypost_core::model::{Host, Name, ServiceKey};
//!
//! let policy = r#"
//! [[allow]] # a workload registers itself, at the address that it calls from
//! who = "spiffe://prod.example/ns/{namespace}/sa/{service}"
//! may = ["register"]
//! on = "{namespace}/{service}"
//! hosts = ["peer"]
//! [[allow]] # and discovers its own namespace and the shared one
//! who = "spiffe://prod.example/ns/{namespace}/sa/*"
//! may = ["discover"]
//! on = ["{namespace}/*", "shared/*"]
//! "#;
//! let policy = Policy::parse(policy, Path::new("."))?;
//!
//! let orders = Principal::parse("spiffe://prod.example/ns/shop/sa/orders")?;
//! let grants = policy.grants(&orders);
//! let service = |service: &str| -> Result<ServiceKey, Box<dyn std::error::Error>> {
//!     Ok(ServiceKey { namespace: "shop".parse()?, service: service.parse()? })
//! };
//! let (own, other) = (service("orders")?, service("payments")?);
//! assert_eq!(grants.decide(Action::Register, Scope::Service(&own)), Ok(RuleLine(2)));
//! assert_eq!(grants.decide(Action::Register, Scope::Service(&other)), Err(Denied));
//! assert_eq!(grants.decide(Action::Discover, Scope::Service(&other)), Ok(RuleLine(7)));
//!
//! let (host, peer) = (Host::parse("10.0.0.7", 253)?, Some("10.0.0.7".parse()?));
//! assert_eq!(grants.decide_register(&own, &host, peer), Ok(RuleLine(2)));
//! assert!(grants.decide_register(&own, &host, Some("10.0.0.8".parse()?)).is_err());
//!
//! assert!(grants.sight(&"shop".parse()?).is_some_and(|sight| sight.is_whole()));
//! assert_eq!(grants.sight(&Name::default_namespace()), None);
//!
//! let errors = Policy::parse("[[allow]]\nwho = 'k8s/a'\nmay = 'operat'", Path::new("."));
//! assert_eq!(
//!     errors.unwrap_err().to_string(),
//!     "line 2: allow[0].who: 'k8s/a' is of an unknown issuer: there is no [issuer.k8s]\n\
//!      line 3: allow[0].may: 'operat' must be one of probe, discover, register, operate, status, \
//!      backup",
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod action;
mod authentication;
mod explanation;
mod file;
mod grants;
mod issuer;
mod limits;
mod pattern;
mod principal;
mod record;
mod rule;
mod token;
mod whole;

pub use action::{Action, Scope, UnknownAction};
pub use authentication::{Authentication, Unauthenticated, Via};
pub use explanation::{Explanation, PrincipalState, RuleMatch, RuleOutcome};
pub use grants::{Denied, Grant, Grants, HostRefusal, RegisterDenied, RuleLine, Sight};
pub use limits::PrincipalLimits;
pub use principal::{InvalidPrincipal, Principal};
pub use record::{InvalidRecord, RecordedUse};
pub use token::{NewToken, NoRandomness};
pub use whole::Policy;

#[cfg(test)]
mod tests;
