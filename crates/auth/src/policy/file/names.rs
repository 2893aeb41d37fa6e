//! The forms of principals: those that a credential can prove, so that a typing error is found.
//!
//! Pure.

use waypost_config::value::{Value, invalid};
use waypost_core::model::Name;

use super::text;
use crate::policy::{
    issuer::Issuer,
    pattern::{PrincipalPattern, is_in_name},
    principal::{ANONYMOUS, Principal},
    token::StaticTokens,
};

const UNKNOWN_FORM: &str =
    "must be spiffe://DOMAIN/PATH, dns/NAME, token/NAME, ISSUER/SUB or anonymous";
const SPIFFE_FORM: &str = "must be spiffe://DOMAIN/PATH, with the domain in lower case, of letters, \
                           digits, '.', '_' and '-' in parts that are not empty, '.' or '..'";
const TOKEN_FORM: &str = "must be token/NAME, with the name of a [[token]]";
const DNS_FORM: &str = "must be dns/NAME, with the name in lower case";

/// The tokens and issuers that principals can be of; `None` if they are invalid themselves.
pub(super) struct Names<'a> {
    pub(super) tokens: Option<&'a StaticTokens>,
    pub(super) issuers: Option<&'a [Issuer]>,
}

impl Names<'_> {
    /// Reads a pattern of principals (`who`).
    pub(super) fn pattern(&self, value: Value<'_>) -> Result<PrincipalPattern, String> {
        let text = text(value)?;
        let pattern = PrincipalPattern::parse(&text).map_err(|reason| invalid(&text, &reason))?;
        let checked = self.check_form(&text).and_then(|()| self.check_token(&pattern));
        checked.map(|()| pattern).map_err(|reason| invalid(&text, &reason))
    }

    /// Reads one principal, which need not exist any more.
    pub(super) fn principal(&self, value: Value<'_>) -> Result<Principal, String> {
        let text = text(value)?;
        let error = |reason: &dyn std::fmt::Display| invalid(&text, reason);
        let principal = Principal::parse(&text).map_err(|reason| error(&reason))?;
        if text.contains(['*', '{', '}']) {
            return Err(error(&"must be one principal, not a pattern"));
        }
        if principal.is_anonymous() {
            return Err(error(&"has no credential to revoke: remove the rules that allow it"));
        }
        self.check_form(&text).map(|()| principal).map_err(|reason| error(&reason))
    }

    fn check_form(&self, text: &str) -> Result<(), String> {
        // A placeholder stands for characters that are valid everywhere.
        let filled = text.replace("{namespace}", "x").replace("{service}", "x").replace('*', "x");
        let form = if filled == ANONYMOUS {
            Ok(())
        } else if let Some(name) = filled.strip_prefix("token/") {
            name.parse::<Name>().map(|_| ()).map_err(|_| TOKEN_FORM)
        } else if let Some(id) = filled.strip_prefix("spiffe://") {
            if is_spiffe(id) { Ok(()) } else { Err(SPIFFE_FORM) }
        } else if let Some(name) = filled.strip_prefix("dns/") {
            if is_dns(name) { Ok(()) } else { Err(DNS_FORM) }
        } else {
            return self.check_issuer(text);
        };
        form.map_err(str::to_owned)
    }

    fn check_issuer(&self, text: &str) -> Result<(), String> {
        let Some((name, subject)) = text.split_once('/') else {
            return Err(UNKNOWN_FORM.to_owned());
        };
        let is_named = |issuers: &[Issuer]| issuers.iter().any(|issuer| *issuer.name == *name);
        if subject.is_empty() || name.is_empty() || !name.bytes().all(is_in_name) {
            Err(UNKNOWN_FORM.to_owned())
        } else if self.issuers.is_none_or(is_named) {
            Ok(())
        } else {
            Err(format!("is of an unknown issuer: there is no [issuer.{name}]"))
        }
    }

    fn check_token(&self, pattern: &PrincipalPattern) -> Result<(), String> {
        let fits = |known: &Principal| pattern.captures(known.as_str()).is_some();
        let is_known = |tokens: &StaticTokens| match pattern.literal() {
            Some(principal) => tokens.principals().contains(principal),
            None => tokens.principals().iter().any(fits),
        };
        if !pattern.as_str().starts_with("token/") || self.tokens.is_none_or(is_known) {
            Ok(())
        } else {
            Err("is no token of this policy: there is no [[token]] of this name".to_owned())
        }
    }
}

/// Returns whether a text is `DOMAIN/PATH` of a SPIFFE ID.
fn is_spiffe(id: &str) -> bool {
    let is_part = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(is_in_name);
    let Some((domain, path)) = id.split_once('/') else { return false };
    is_part(domain) && is_lower(domain) && path.split('/').all(is_part)
}

/// Returns whether a text is a DNS name in lower case.
fn is_dns(name: &str) -> bool {
    !name.is_empty() && is_lower(name) && name.bytes().all(is_in_name)
}

fn is_lower(text: &str) -> bool {
    !text.bytes().any(|byte| byte.is_ascii_uppercase())
}
