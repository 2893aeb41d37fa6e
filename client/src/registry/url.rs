//! URLs of a registry: `https://host:port` or `http://host:port`, and nothing else. Pure.

use std::net::IpAddr;

use http::{
    Uri,
    uri::{InvalidUri, Scheme},
};

/// An error in the URL of a registry.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UrlError {
    #[error(
        "it has an IPv6 zone id (%), which is not supported: use an address without one, or a DNS name"
    )]
    ZoneId,
    #[error(transparent)]
    Syntax(#[from] InvalidUri),
    #[error("it does not start with http:// or https://")]
    Scheme,
    #[error("it has no host")]
    NoHost,
    #[error("it has a user name")]
    UserName,
    #[error("it has no port")]
    NoPort,
    #[error("it has a path or a query after the port")]
    Path,
}

/// Parses the URL of a registry.
pub(crate) fn parse_url(url: &str) -> Result<Uri, UrlError> {
    if has_zone(url) {
        return Err(UrlError::ZoneId);
    }
    let uri: Uri = url.parse()?;
    if uri.scheme() != Some(&Scheme::HTTP) && uri.scheme() != Some(&Scheme::HTTPS) {
        return Err(UrlError::Scheme);
    }
    let authority = uri.authority().ok_or(UrlError::NoHost)?;
    if authority.as_str().contains('@') {
        return Err(UrlError::UserName);
    }
    if authority.host().is_empty() {
        return Err(UrlError::NoHost);
    }
    if uri.port_u16().is_none_or(|port| port == 0) {
        return Err(UrlError::NoPort);
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(UrlError::Path);
    }
    Ok(uri)
}

/// Returns whether the connection is encrypted.
pub(crate) fn is_https(uri: &Uri) -> bool {
    uri.scheme() == Some(&Scheme::HTTPS)
}

/// Returns whether the host is this machine by its address, or `localhost`. Any other name may
/// resolve to another machine.
pub(crate) fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    address.map_or_else(
        |_| host.eq_ignore_ascii_case("localhost"),
        |address| address.to_canonical().is_loopback(),
    )
}

/// Returns whether the host is an IPv6 address with a zone (RFC 6874). `Uri` can't parse one.
fn has_zone(url: &str) -> bool {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    let is_ipv6 = authority.starts_with('[') || authority.matches(':').count() > 1;
    is_ipv6 && authority.contains('%')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_urls_are_rejected() {
        for url in [
            "",
            "127.0.0.1:7510",
            "ftp://127.0.0.1:7510",
            "https://127.0.0.1",
            "https://user@127.0.0.1:7510",
            "http://127.0.0.1",
            "http://127.0.0.1:0",
            "http://127.0.0.1:7510/registry",
            "http://127.0.0.1:7510/?a=b",
            "http://user:secret@127.0.0.1:7510",
            "http://:7510",
            "http://a b:7510",
            "http://127.0.0.1:99999",
        ] {
            assert!(parse_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_zone_id_is_named_in_the_error() {
        for url in [
            "http://[fe80::1%25eth0]:7510",
            "http://[fe80::1%eth0]:7510/",
            "http://[fe80::a:b%253]",
            "http://fe80::1%25eth0:7510",
        ] {
            let error = parse_url(url).unwrap_err();
            assert!(matches!(error, UrlError::ZoneId), "{url}: {error}");
        }
        for url in ["http://a%25b:7510", "http://[::1]:7510/%25", "http://[::1]:7510/?a=%25"] {
            let error = parse_url(url).unwrap_err();
            assert!(!matches!(error, UrlError::ZoneId), "{url}: {error}");
        }
    }

    #[test]
    fn urls_with_host_and_port_are_accepted() {
        for url in [
            "http://127.0.0.1:7510",
            "http://[::1]:7510/",
            "http://registry.internal:80",
            "https://registry.internal:7510",
        ] {
            assert_eq!(is_https(&parse_url(url).unwrap()), url.starts_with("https"), "{url}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (host, expected) in [
            ("127.0.0.1", true),
            ("127.8.9.1", true),
            ("[::1]", true),
            ("[::ffff:127.0.0.1]", true),
            ("localhost", true),
            ("LOCALHOST", true),
            ("0.0.0.0", false),
            ("[::]", false),
            ("10.0.0.1", false),
            ("registry.localhost", false),
            ("localhost.example", false),
            ("127.0.0.1.example", false),
        ] {
            let uri = parse_url(&format!("http://{host}:7510")).unwrap();
            assert_eq!(is_loopback(&uri), expected, "{host}");
        }
    }
}
