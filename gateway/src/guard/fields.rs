//! Fields that make an instance serve another request than the one that was checked. Pure.
//! Never checks fields that have a meaning for services alone.

use http::{
    HeaderName, Method, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, MAX_FORWARDS, ORIGIN, RANGE},
    request::Parts,
};

use super::{Refused, at_most_one, members};

/// The most ranges: more of them cost an instance more than their caller.
const RANGES_MAX: usize = 16;

/// Fields that override the method, path, or proxy of the request.
const OVERRIDES: [&str; 6] = [
    "proxy",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
];

/// Fields that gateways and instances decide by. Software that reads `_` as `-`, as CGI and its
/// successors do, must not find a second one.
const SENSITIVE: [&str; 19] = [
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "origin",
    "true-client-ip",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-real-ip",
    "x-request-id",
];

/// The prefixes of further such fields.
const SENSITIVE_PREFIXES: [&str; 5] = ["proxy-", "sec-", "x-auth-", "x-forwarded-", "x-waypost-"];

/// Fields of which a request has at most one: of two, one party could read the first, another the
/// last.
static SINGLE: [HeaderName; 4] = [AUTHORIZATION, CONTENT_TYPE, ORIGIN, RANGE];

pub(super) fn check(parts: &Parts) -> Result<(), Refused> {
    let headers = &parts.headers;
    for name in headers.keys() {
        if OVERRIDES.contains(&name.as_str()) {
            return Err(Refused::bad("a field overrides another part of the request"));
        }
        if shadows(name.as_str()) {
            return Err(Refused::bad("a field could be read as another one"));
        }
    }
    for name in &SINGLE {
        at_most_one(headers, name, "a field is repeated that must be there once")?;
    }
    if members(headers, &RANGE).count() > RANGES_MAX {
        let status = StatusCode::RANGE_NOT_SATISFIABLE;
        return Err(Refused::new(status, "there are too many ranges"));
    }
    // The hop at which it would be 0 is known neither here nor to instances.
    if parts.method == Method::OPTIONS && headers.contains_key(MAX_FORWARDS) {
        return Err(Refused::bad("`Max-Forwards` is not supported"));
    }
    Ok(())
}

/// Returns true for a field that gateways or instances decide by, or that could be read as one.
pub(super) fn is_sensitive(name: &HeaderName) -> bool {
    SENSITIVE.contains(&name.as_str())
        || SENSITIVE_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix))
        || shadows(name.as_str())
}

/// Returns true for a sensitive name with other characters in place of its hyphens.
fn shadows(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if name.bytes().all(plain) {
        return false;
    }
    let read: String =
        name.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '-' }).collect();
    SENSITIVE.contains(&read.as_str())
        || OVERRIDES.contains(&read.as_str())
        || SENSITIVE_PREFIXES.iter().any(|prefix| read.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{judge, with};
    use super::*;
    use http::Version;

    #[test]
    fn overrides_are_refused() {
        for name in OVERRIDES {
            assert_eq!(with(&[(name, "x")]), Some(400), "{name}");
            let shadow = name.replace('-', "_");
            assert_eq!(with(&[(&shadow, "x")]), Some(400), "{shadow}");
        }
    }

    #[test]
    fn a_name_that_reads_like_a_sensitive_one_is_refused() {
        for name in [
            "x_forwarded_for",
            "X_Forwarded-Proto",
            "x.forwarded.for",
            "x_waypost_subject",
            "x-waypost_subject",
            "content_length",
            "transfer_encoding",
            "Content_Type",
            "x_real_ip",
            "proxy_authorization",
            "sec_fetch_site",
            "x!request!id",
        ] {
            assert_eq!(with(&[(name, "x")]), Some(400), "{name}");
        }
    }

    #[test]
    fn other_unusual_names_pass() {
        for name in ["api_key", "X_API_KEY", "x.trace", "_", "x-forwarded-for", "hosts_", "via2"] {
            assert_eq!(with(&[(name, "x")]), None, "{name}");
        }
    }

    #[test]
    fn single_fields_are_not_repeated() {
        for name in &SINGLE {
            let name = name.as_str();
            assert_eq!(with(&[(name, "a=1")]), None, "{name}");
            assert_eq!(with(&[(name, "a=1"), (name, "a=1")]), Some(400), "{name}");
        }
        assert_eq!(
            with(&[("accept", "a"), ("accept", "b"), ("cookie", "a"), ("cookie", "b")]),
            None
        );
    }

    #[test]
    fn a_few_ranges_pass() {
        let ranges = |count: usize| format!("bytes={}", vec!["0-1"; count].join(","));
        assert_eq!(with(&[("range", &ranges(RANGES_MAX))]), None);
        assert_eq!(with(&[("range", &ranges(RANGES_MAX + 1))]), Some(416));
        assert_eq!(with(&[("range", &ranges(1300))]), Some(416));
    }

    #[test]
    fn max_forwards_is_not_supported() {
        let fields = [("host", "a"), ("max-forwards", "0")];
        assert_eq!(judge("OPTIONS", "*", Version::HTTP_11, &fields), Some(400));
        assert_eq!(judge("GET", "/", Version::HTTP_11, &fields), None);
    }
}
