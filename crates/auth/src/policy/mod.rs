//! The policy: which caller may do which action on which services.
//!
//! From the top: `whole`, the policy with its `rule`s, static `token`s and `limits`; `grants`, the
//! rights of one principal, at which each use is decided; `pattern`; and the nouns `authentication`,
//! `principal` and `action`.
//! Pure, but for the files that the policy names: the caller passes the time in.
//!
//! Invariant: rules only allow, so their order decides nothing, and nothing unknown is allowed.

mod action;
mod authentication;
mod grants;
mod limits;
mod pattern;
mod principal;
mod rule;
mod token;
mod whole;

pub use action::{Action, Scope, UnknownAction};
pub use authentication::{Authentication, Unauthenticated, Via};
pub use grants::{Denied, Grant, Grants, HostRefusal, RegisterDenied, RuleLine, Sight};
pub use limits::PrincipalLimits;
pub use principal::{InvalidPrincipal, Principal};
pub use token::{NewToken, NoRandomness};
pub use whole::Policy;
