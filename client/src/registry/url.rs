//! URLs of a registry: `http://host:port` and nothing else. Pure.

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
    #[error("it does not start with http://")]
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
    if uri.scheme() != Some(&Scheme::HTTP) {
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
            "https://127.0.0.1:7510",
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
        for url in ["http://127.0.0.1:7510", "http://[::1]:7510/", "http://registry.internal:80"] {
            assert!(parse_url(url).is_ok(), "{url}");
        }
    }
}
