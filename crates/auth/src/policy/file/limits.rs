//! Reads the limits (`[[limit]]`): each is of principals or of a namespace.

use waypost_config::{
    Invalid, Section,
    value::{Value, integer, invalid, string},
};

use super::{list, names::Names, tables};
use crate::policy::{
    limits::{PolicyLimits, PrincipalLimits},
    pattern::{NamePart, PrincipalPattern, name_part},
};

/// One table.
enum Limit {
    OfPrincipals(Vec<PrincipalPattern>, PrincipalLimits),
    OfNamespace(NamePart, usize),
}

pub(super) fn read(file: &mut Section<'_>, names: &Names<'_>) -> Result<PolicyLimits, Invalid> {
    let mut limits = PolicyLimits::default();
    for limit in tables(file, "limit", |section| read_limit(section, names))? {
        match limit {
            Limit::OfPrincipals(who, limit) => {
                limits.of_principals.extend(who.into_iter().map(|pattern| (pattern, limit)));
            }
            Limit::OfNamespace(namespace, instances) => {
                limits.of_namespaces.push((namespace, instances));
            }
        }
    }
    Ok(limits)
}

fn read_limit(section: &mut Section<'_>, names: &Names<'_>) -> Result<Limit, Invalid> {
    let is_of_principals = section.has("who");
    let is_of_namespace = section.has("namespace");
    let of_principals = is_of_principals.then(|| of_principals(section, names));
    let of_namespace = is_of_namespace.then(|| of_namespace(section));
    match (of_principals, of_namespace) {
        (Some(limit), None) | (None, Some(limit)) => limit,
        (Some(_), Some(_)) => Err(section.error("namespace", "is not for a limit with who")),
        (None, None) => Err(section.error("who", "is missing, and so is namespace")),
    }
}

fn of_principals(section: &mut Section<'_>, names: &Names<'_>) -> Result<Limit, Invalid> {
    let who = list(section, "who", |value| {
        let pattern = names.pattern(value)?;
        if pattern.has_namespace() || pattern.has_service() {
            let reason = "has a capture, and a limit has no use for it: write *";
            return Err(invalid(pattern.as_str(), &reason));
        }
        Ok(pattern)
    });
    let writes = section.table("writes", |writes| {
        let per_second = writes.required("per_second", count);
        let burst = writes.required("burst", count);
        Ok((per_second?, burst?))
    });
    let watches = section.read("watches", count);
    let connections = section.read("connections", count);
    let (writes, watches, connections) = (writes?, watches?, connections?);
    if writes.is_none() && watches.is_none() && connections.is_none() {
        return Err(section.error("writes", "is missing, and so are watches and connections"));
    }
    let mut limits = PrincipalLimits::default();
    if let Some((per_second, burst)) = writes {
        (limits.writes_per_second, limits.writes_burst) = (per_second, burst);
    }
    limits.watches = watches.unwrap_or(limits.watches);
    limits.connections = connections.unwrap_or(limits.connections);
    Ok(Limit::OfPrincipals(who?, limits))
}

fn of_namespace(section: &mut Section<'_>) -> Result<Limit, Invalid> {
    let namespace = section.required("namespace", |value| {
        let text = string(value)?;
        name_part(&text).map_err(|reason| invalid(&text, &reason))
    });
    let instances = section.required("instances", |value| integer(value, 1_usize..));
    Ok(Limit::OfNamespace(namespace?, instances?))
}

fn count(value: Value<'_>) -> Result<u32, String> {
    integer(value, 1..=u32::MAX)
}
