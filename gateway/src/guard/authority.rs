//! The host of a request: there is exactly one, in plain letters. Pure.

use std::net::Ipv6Addr;

use http::{Version, header::HOST, request::Parts};

use super::{Refused, at_most_one};

/// Checks RFC 9112, 3.2, and RFC 9113, 8.3.1. Stricter than both: `Host` and the target's authority
/// must agree, as some parties ignore one of them.
pub(super) fn check(parts: &Parts) -> Result<(), Refused> {
    let host = at_most_one(&parts.headers, &HOST, "there is more than one host")?;
    let authority = parts.uri.authority();
    if let Some(host) = host
        && !is_authority(host.as_bytes())
    {
        return Err(Refused::bad("the host is malformed"));
    }
    if let Some(authority) = authority
        && !is_authority(authority.as_str().as_bytes())
    {
        return Err(Refused::bad("the authority of the target is malformed"));
    }
    match (authority, host) {
        (Some(authority), Some(host)) => {
            let authority = authority.as_str().as_bytes();
            if !host.as_bytes().eq_ignore_ascii_case(authority) {
                return Err(Refused::bad("the host differs from the authority of the target"));
            }
        }
        (Some(_), None) if parts.version == Version::HTTP_11 => {
            return Err(Refused::bad("there is no host"));
        }
        (None, None) if parts.version != Version::HTTP_10 => {
            return Err(Refused::bad("there is no host"));
        }
        _ => {}
    }
    Ok(())
}

/// Returns true for a name or an address with or without a port, in plain letters: no part of it
/// can be read as a user or a path.
pub(crate) fn is_authority(value: &[u8]) -> bool {
    let Ok(value) = str::from_utf8(value) else { return false };
    if let Some(rest) = value.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        return address.parse::<Ipv6Addr>().is_ok() && is_port(port);
    }
    let (name, port) = value.split_at(value.find(':').unwrap_or(value.len()));
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    // The limit of DNS.
    (1..=253).contains(&name.len()) && name.bytes().all(plain) && is_port(port)
}

/// Returns true for an empty text, and for a colon with a port.
fn is_port(port: &str) -> bool {
    let Some(digits) = port.strip_prefix(':') else { return port.is_empty() };
    // The standard library accepts a sign.
    digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::tests::judge;
    use super::*;

    fn over(version: Version, target: &str, hosts: &[&str]) -> Option<u16> {
        let fields: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        judge("GET", target, version, &fields)
    }

    #[test]
    fn plain_hosts_pass() {
        for host in ["a", "shop.example", "shop.example.", "SHOP.example:8443", "my_shop", "a:0"] {
            assert!(is_authority(host.as_bytes()), "{host}");
        }
        for host in ["10.0.0.1", "10.0.0.1:80", "[::1]", "[2001:db8::1]:443", "[::ffff:10.0.0.1]"] {
            assert!(is_authority(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn text_that_could_be_more_than_a_host_is_malformed() {
        for host in [
            "",
            ":80",
            "a:",
            "a:+80",
            "a:80:80",
            "a:65536",
            "a:b",
            "user@a",
            "user:secret@a",
            "a/b",
            "a/../b",
            "a b",
            " a",
            "a,b",
            "a?b",
            "a#b",
            "a\\b",
            "a%00",
            "a%2f",
            "a\t",
            "a\0",
            "[::1",
            "::1",
            "[::1]80",
            "[a]",
            "[::1%25lo]",
            "[fe80::1%eth0]",
            "<a>",
            "a;b",
            "http://a",
            "ü",
        ] {
            assert!(!is_authority(host.as_bytes()), "{host:?}");
        }
        assert!(!is_authority(b"a\xff"));
        assert!(is_authority("a".repeat(253).as_bytes()));
        assert!(!is_authority("a".repeat(254).as_bytes()));
    }

    #[test]
    fn a_request_has_one_host() {
        assert_eq!(over(Version::HTTP_11, "/", &["a"]), None);
        assert_eq!(over(Version::HTTP_11, "/", &[]), Some(400));
        assert_eq!(over(Version::HTTP_11, "/", &[""]), Some(400));
        assert_eq!(over(Version::HTTP_11, "/", &["user@a"]), Some(400));
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            assert_eq!(over(version, "/", &["a", "a"]), Some(400));
            assert_eq!(over(version, "/", &["a", "b"]), Some(400));
        }
    }

    #[test]
    fn http_1_0_needs_no_host() {
        assert_eq!(over(Version::HTTP_10, "/", &[]), None);
        assert_eq!(over(Version::HTTP_10, "/", &["a/b"]), Some(400));
    }

    #[test]
    fn authority_and_host_must_agree() {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            assert_eq!(over(version, "http://a:80/", &["A:80"]), None);
            assert_eq!(over(version, "http://a/", &["b"]), Some(400));
            assert_eq!(over(version, "http://a/", &["a:80"]), Some(400));
            assert_eq!(over(version, "http://user@a/", &["a"]), Some(400));
            assert_eq!(over(version, "http://user@a/", &["user@a"]), Some(400));
        }
    }

    #[test]
    fn an_authority_replaces_the_host_in_http_2_alone() {
        assert_eq!(over(Version::HTTP_2, "http://a/", &[]), None);
        assert_eq!(over(Version::HTTP_11, "http://a/", &[]), Some(400));
        assert_eq!(over(Version::HTTP_2, "/", &["a"]), None);
        assert_eq!(over(Version::HTTP_2, "/", &[]), Some(400));
    }
}
