//! The naive reference: decisions by the words of the documentation, on texts.

use std::net::IpAddr;

use waypost_core::model::ServiceKey;

use super::model::PolicyModel;
use crate::policy::{Action, Scope};

/// The rules that hold for one principal, in the order of the file, with their captures filled in.
pub(super) struct Held {
    is_revoked: bool,
    is_anonymous: bool,
    rules: Vec<HeldRule>,
}

struct HeldRule {
    line: u32,
    may: Vec<Action>,
    on: Vec<(String, String)>,
    hosts: Option<Vec<&'static str>>,
}

impl Held {
    pub(super) fn new(model: &PolicyModel, principal: &str) -> Self {
        let mut rules = Vec::new();
        for (index, rule) in model.rules.iter().enumerate() {
            let mut on = Vec::new();
            for who in &rule.who {
                let Some(captures) = matches(who, principal) else { continue };
                if captures.iter().any(|(_, text)| !is_name(text)) {
                    continue;
                }
                for target in rule.on.as_deref().unwrap_or(&["*/*"]) {
                    let mut filled = (*target).to_owned();
                    for (placeholder, text) in &captures {
                        filled = filled.replace(placeholder, text);
                    }
                    let (namespace, service) = filled.split_once('/').expect("two parts");
                    on.push((namespace.to_owned(), service.to_owned()));
                }
            }
            let line = PolicyModel::line(index);
            let (may, hosts) = (rule.may.clone(), rule.hosts.clone());
            rules.push(HeldRule { line, may, on, hosts });
        }
        Self {
            is_revoked: model.revoked.iter().any(|revoked| revoked == principal),
            is_anonymous: principal == "anonymous",
            rules,
        }
    }

    pub(super) fn decide(&self, action: Action, scope: Scope<'_>) -> Option<u32> {
        if self.is_revoked {
            return None;
        }
        if action == Action::Probe && !self.is_anonymous {
            return Some(0);
        }
        self.allowing(action, scope).next().map(|rule| rule.line)
    }

    fn allowing(&self, action: Action, scope: Scope<'_>) -> impl Iterator<Item = &HeldRule> {
        self.rules.iter().filter(move |rule| {
            let fits_scope = |(namespace, service): &(String, String)| match scope {
                Scope::Server => namespace == "*" && service == "*",
                Scope::Namespace(name) => service == "*" && fits(namespace, name.as_str()),
                Scope::Service(key) => {
                    fits(namespace, key.namespace.as_str()) && fits(service, key.service.as_str())
                }
            };
            rule.may.contains(&action) && rule.on.iter().any(fits_scope)
        })
    }

    pub(super) fn decide_register(
        &self,
        key: &ServiceKey,
        host: &str,
        peer: Option<&str>,
    ) -> (&'static str, Option<u32>) {
        if self.decide(Action::Register, Scope::Service(key)).is_none() {
            return ("register: denied", None);
        }
        if !may_be_a_host(host, peer) {
            return ("register: not this host", None);
        }
        let allows = |rule: &&HeldRule| match &rule.hosts {
            None => true,
            Some(hosts) => hosts.iter().any(|each| host_fits(each, host, peer)),
        };
        match self.allowing(Action::Register, Scope::Service(key)).find(allows) {
            Some(rule) => ("register: allowed", Some(rule.line)),
            None => ("register: not listed", None),
        }
    }

    /// A namespace is seen whole by a rule on all of it, and in part by any other rule in it.
    pub(super) fn sight(&self, namespace: &str) -> &'static str {
        let rules = self.rules.iter().filter(|rule| rule.may.contains(&Action::Discover));
        let parts = rules.flat_map(|rule| &rule.on).filter(|(name, _)| fits(name, namespace));
        let parts: Vec<&str> = parts.map(|(_, service)| service.as_str()).collect();
        match parts.contains(&"*") {
            _ if self.is_revoked || parts.is_empty() => "sight: none",
            true => "sight: whole",
            false => "sight: part",
        }
    }
}

fn is_of_class(character: char) -> bool {
    character.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&character)
}

/// Letters, digits, `.`, `_` and `-`, with a letter or digit at both ends.
fn is_name(text: &str) -> bool {
    text.chars().all(is_of_class)
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.ends_with(|last: char| last.is_ascii_alphanumeric())
}

/// What each capture took, if the pattern fits the text.
fn matches(pattern: &str, text: &str) -> Option<Vec<(&'static str, String)>> {
    for placeholder in ["*", "{namespace}", "{service}"] {
        let Some(pattern) = pattern.strip_prefix(placeholder) else { continue };
        // All that comes, and at least one.
        let all: String = text.chars().take_while(|character| is_of_class(*character)).collect();
        if all.is_empty() {
            return None;
        }
        let mut captures = matches(pattern, &text[all.len()..])?;
        if placeholder != "*" {
            captures.push((placeholder, all));
        }
        return Some(captures);
    }
    match (pattern.chars().next(), text.chars().next()) {
        (None, None) => Some(Vec::new()),
        (Some(one), Some(other)) if one == other => matches(&pattern[1..], &text[1..]),
        _ => None,
    }
}

/// A `*` at the end stands for at least one character.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.len() > start.len() && name.starts_with(start),
        None => pattern == name,
    }
}

/// The bytes of an address; four for an IPv4-mapped one.
fn bytes_of(text: &str) -> Option<Vec<u8>> {
    let bytes = match text.parse().ok()? {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    Some(bytes.strip_prefix(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255]).unwrap_or(&bytes).to_vec())
}

fn is_loopback(bytes: &[u8]) -> bool {
    match bytes.len() {
        4 => bytes[0] == 127,
        _ => bytes[..15].iter().all(|byte| *byte == 0) && bytes[15] == 1,
    }
}

/// Never unspecified, multicast or link-local, nor loopback from elsewhere.
fn may_be_a_host(host: &str, peer: Option<&str>) -> bool {
    let is_here = peer.and_then(bytes_of).is_some_and(|bytes| is_loopback(&bytes));
    let Some(bytes) = bytes_of(host) else {
        let host = host.to_lowercase();
        let host = host.trim_end_matches('.');
        return is_here || !(host == "localhost" || host.ends_with(".localhost"));
    };
    let is_multicast = match bytes.len() {
        4 => (224..240).contains(&bytes[0]),
        _ => bytes[0] == 255,
    };
    let is_link_local = match bytes.len() {
        4 => bytes[0] == 169 && bytes[1] == 254,
        _ => bytes[0] == 0xfe && (0x80..0xc0).contains(&bytes[1]),
    };
    let is_unspecified = bytes.iter().all(|byte| *byte == 0);
    !is_multicast && !is_link_local && !is_unspecified && (is_here || !is_loopback(&bytes))
}

fn host_fits(rule: &str, host: &str, peer: Option<&str>) -> bool {
    let Some(bytes) = bytes_of(host) else {
        let (rule, host) = (rule.to_lowercase(), host.to_lowercase());
        let (rule, host) = (rule.trim_end_matches('.'), host.trim_end_matches('.'));
        return match rule.strip_prefix("*.") {
            Some(below) => host.ends_with(&format!(".{below}")),
            None => rule == host,
        };
    };
    if rule == "peer" {
        return peer.and_then(bytes_of) == Some(bytes);
    }
    let (network, bits) = rule.split_once('/').unwrap_or((rule, ""));
    let Some(network) = bytes_of(network).filter(|network| network.len() == bytes.len()) else {
        return false;
    };
    let bits = bits.parse().unwrap_or(8 * bytes.len());
    let bit = |bytes: &[u8], index: usize| bytes[index / 8] >> (7 - index % 8) & 1;
    (0..bits).all(|index| bit(&network, index) == bit(&bytes, index))
}
