//! A policy that was read as a whole: it authenticates tokens, and gives each principal its rights.
//!
//! Pure: the caller passes the time in.

use std::{collections::HashSet, fmt, path::PathBuf, time::SystemTime};

use http::HeaderMap;
use waypost_core::model::Name;

use super::{
    authentication::{Authentication, Unauthenticated},
    grants::Grants,
    issuer::{self, Issuer},
    limits::{PolicyLimits, PrincipalLimits},
    principal::{ANONYMOUS, Principal},
    rule::Rule,
    token::{self, StaticTokens, TOKEN_PREFIX},
};

/// A valid policy.
pub struct Policy {
    pub(super) is_enforced: bool,
    pub(super) sha256: [u8; 32],
    /// In the order of the file.
    pub(super) rules: Vec<Rule>,
    pub(super) tokens: StaticTokens,
    pub(super) issuers: Vec<Issuer>,
    pub(super) limits: PolicyLimits,
    pub(super) revoked: Revoked,
    pub(super) files: Vec<PathBuf>,
}

/// The credentials that `revoked` lists.
#[derive(Default)]
pub(super) struct Revoked {
    pub(super) principals: HashSet<Principal>,
    /// By the SHA-256 of the certificate.
    pub(super) certificates: HashSet<[u8; 32]>,
}

impl Policy {
    /// Returns the files with the keys of issuers, which the policy consists of, too.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Returns whether refusals are final. Otherwise, they are counted and logged alone.
    #[must_use]
    pub fn is_enforced(&self) -> bool {
        self.is_enforced
    }

    /// Returns the SHA-256 of the policy's text, by which the servers of a cluster are compared.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// Returns whether a principal is revoked, by whatever credential.
    #[must_use]
    pub fn revokes(&self, principal: &Principal) -> bool {
        self.revoked.principals.contains(principal)
    }

    /// Returns whether a certificate is revoked, by its SHA-256.
    #[must_use]
    pub fn revokes_certificate(&self, sha256: &[u8; 32]) -> bool {
        self.revoked.certificates.contains(sha256)
    }

    /// Returns whether a caller without a certificate can have a right: by a token, or as
    /// `anonymous`.
    #[must_use]
    pub fn admits_without_certificate(&self) -> bool {
        let patterns = || self.rules.iter().flat_map(|rule| &rule.who);
        !self.tokens.is_empty()
            || !self.issuers.is_empty()
            || patterns().any(|pattern| pattern.as_str() == ANONYMOUS)
    }

    /// Authenticates the caller of a request by its bearer token; `None` without `authorization`.
    ///
    /// # Errors
    /// A credential is given that does not hold, or it is given twice.
    pub fn authenticate(
        &self,
        headers: &HeaderMap,
        now: SystemTime,
    ) -> Result<Option<Authentication>, Unauthenticated> {
        let token = token::bearer(headers)?;
        token.map(|token| self.authenticate_token(token, now)).transpose()
    }

    /// Authenticates a caller by a token.
    ///
    /// # Errors
    /// The token is invalid, has expired, or its principal is revoked.
    pub fn authenticate_token(
        &self,
        token: &str,
        now: SystemTime,
    ) -> Result<Authentication, Unauthenticated> {
        let authentication = if token.starts_with(TOKEN_PREFIX) {
            self.tokens.authenticate(token, now)?
        } else {
            issuer::authenticate(&self.issuers, token, now)?
        };
        if self.revokes(&authentication.principal) {
            return Err(Unauthenticated::Revoked);
        }
        Ok(authentication)
    }

    /// Returns the rights of a principal; none, if it is revoked.
    #[must_use]
    pub fn grants(&self, principal: &Principal) -> Grants {
        if self.revokes(principal) {
            return Grants::of_rules(false, Vec::new());
        }
        let targets = self.rules.iter().flat_map(|rule| rule.targets(principal)).collect();
        Grants::of_rules(!principal.is_anonymous(), targets)
    }

    /// Returns the limits of a principal: of the first `[[limit]]` that fits, or the defaults.
    #[must_use]
    pub fn principal_limits(&self, principal: &Principal) -> PrincipalLimits {
        self.limits.of_principal(principal)
    }

    /// Returns the greatest number of instances in a namespace, if the policy has one.
    #[must_use]
    pub fn instances_max(&self, namespace: &Name) -> Option<usize> {
        self.limits.instances_max(namespace)
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Policy")
            .field("is_enforced", &self.is_enforced)
            .field("rules", &self.rules.len())
            .finish_non_exhaustive()
    }
}
