//! The hosts of a route. Pure.
//! Invariant: neither case nor port distinguishes hosts.

use std::{cmp::Ordering, fmt, net::Ipv6Addr, str::FromStr};

/// The hosts of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum HostPattern {
    /// One host: a DNS name or an IP address, in lower case, IPv6 in brackets.
    Exact(String),
    /// All hosts with one label or more before this name, which is in lower case.
    Below(String),
    /// Any host, or none. The default.
    #[default]
    Any,
}

/// The text is not a [`HostPattern`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a DNS name such as api.example.com, one with '*.' before it, or an IP address (IPv6 in \
     brackets), without a port"
)]
pub(crate) struct HostPatternError;

impl FromStr for HostPattern {
    type Err = HostPatternError;

    fn from_str(text: &str) -> Result<Self, HostPatternError> {
        if let Some(name) = text.strip_prefix("*.") {
            return dns_name(name).map(Self::Below);
        }
        if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let address: Ipv6Addr = address.parse().map_err(|_| HostPatternError)?;
            return Ok(Self::Exact(format!("[{address}]")));
        }
        dns_name(text).map(Self::Exact)
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => formatter.write_str(name),
            Self::Below(name) => write!(formatter, "*.{name}"),
            Self::Any => formatter.write_str("any host"),
        }
    }
}

/// Parses a DNS name, or an IPv4 address, which looks like one.
fn dns_name(text: &str) -> Result<String, HostPatternError> {
    let in_label = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(in_label);
    if text.len() <= 253 && text.split('.').all(label) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(HostPatternError)
    }
}

/// Returns the host of an authority, without the port, and without the final dot of an absolute
/// name.
pub(super) fn without_port(authority: &str) -> &str {
    if authority.starts_with('[') {
        return authority.find(']').map_or(authority, |end| &authority[..=end]);
    }
    let host = authority.split_once(':').map_or(authority, |(host, _)| host);
    host.strip_suffix('.').unwrap_or(host)
}

/// Returns the parent names of `host`, the longest first.
pub(super) fn parents(host: &str) -> impl Iterator<Item = &str> {
    host.bytes()
        .enumerate()
        .filter(|(at, byte)| *byte == b'.' && *at > 0)
        .map(|(at, _)| &host[at + 1..])
}

/// Compares `known`, in lower case, with a host in any case.
pub(super) fn compare(known: &str, host: &str) -> Ordering {
    known.bytes().cmp(host.bytes().map(|byte| byte.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_kept_in_lower_case() {
        for (text, kept) in [
            ("API.example.com", HostPattern::Exact("api.example.com".into())),
            ("localhost", HostPattern::Exact("localhost".into())),
            ("10.0.0.1", HostPattern::Exact("10.0.0.1".into())),
            ("[2001:DB8:0::7]", HostPattern::Exact("[2001:db8::7]".into())),
            ("*.Example.com", HostPattern::Below("example.com".into())),
        ] {
            assert_eq!(text.parse(), Ok(kept), "{text}");
        }
    }

    #[test]
    fn other_text_is_not_a_pattern() {
        let (label, name) = ("x".repeat(64), "x.".repeat(127) + "x");
        for text in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "*",
            "*.",
            "a.*.b",
            "**.a",
            "a:80",
            "[::1",
            "[::1]:80",
            "[1.2.3.4]",
            "::1",
            "http://a",
            "a/b",
            "a b",
            "ü.de",
            &label,
            &name,
        ] {
            assert_eq!(text.parse::<HostPattern>(), Err(HostPatternError), "{text}");
        }
    }

    #[test]
    fn the_port_is_not_part_of_the_host() {
        for (authority, host) in [
            ("a.b", "a.b"),
            ("a.b:80", "a.b"),
            ("a.b.:80", "a.b"),
            ("[::1]", "[::1]"),
            ("[::1]:80", "[::1]"),
            ("[::1", "[::1"),
            (":80", ""),
            ("", ""),
        ] {
            assert_eq!(without_port(authority), host);
        }
    }

    #[test]
    fn parents_follow_the_labels() {
        assert_eq!(parents("a.b.c").collect::<Vec<_>>(), ["b.c", "c"]);
        assert_eq!(parents(".b").count(), 0, "no label precedes the dot");
        assert_eq!(parents("a").count(), 0);
    }
}
