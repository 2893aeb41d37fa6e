//! Fields that make an instance do something other than what was asked for here. It must never look at
//! what a field means to a service.

use http::{
    HeaderName, Method, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, MAX_FORWARDS, ORIGIN, RANGE},
    request::Parts,
};

use super::{Refused, at_most_one, members};

/// More ranges are more work to answer than to ask for.
const RANGES_MAX: usize = 16;

/// Fields that stand for another method, path, or proxy than those of the request.
const STAND_INS: [&str; 6] = [
    "proxy",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
];

/// Fields that gateways and instances decide by. Something that reads `_` as `-`, as CGI and all that
/// came after it does, must not find a second one.
const DECISIVE: [&str; 19] = [
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

/// The same, by how they begin.
const DECISIVE_FAMILIES: [&str; 5] = ["proxy-", "sec-", "x-auth-", "x-forwarded-", "x-waypost-"];

/// Of two, one party could take the first, another the last.
static SINGLE: [HeaderName; 4] = [AUTHORIZATION, CONTENT_TYPE, ORIGIN, RANGE];

pub(super) fn check(parts: &Parts) -> Result<(), Refused> {
    let headers = &parts.headers;
    for name in headers.keys() {
        if STAND_INS.contains(&name.as_str()) {
            return Err(Refused::bad("a field stands for another part of the request"));
        }
        if shadows(name.as_str()) {
            return Err(Refused::bad("a field could be read as another"));
        }
    }
    for name in &SINGLE {
        at_most_one(headers, name, "a field is there more than once")?;
    }
    if members(headers, &RANGE).count() > RANGES_MAX {
        let status = StatusCode::RANGE_NOT_SATISFIABLE;
        return Err(Refused::new(status, "there are too many ranges"));
    }
    // Whoever it is meant for is not known here, nor to the instances.
    if parts.method == Method::OPTIONS && headers.contains_key(MAX_FORWARDS) {
        return Err(Refused::bad("the hops of a request cannot be counted"));
    }
    Ok(())
}

/// Returns whether gateways and instances decide by a field, or by one that could be read as it.
pub(super) fn decides(name: &HeaderName) -> bool {
    DECISIVE.contains(&name.as_str())
        || DECISIVE_FAMILIES.iter().any(|family| name.as_str().starts_with(family))
        || shadows(name.as_str())
}

/// Whether a name has something else in place of the hyphens of a name that decides.
fn shadows(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if name.bytes().all(plain) {
        return false;
    }
    let read: String =
        name.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '-' }).collect();
    DECISIVE.contains(&read.as_str())
        || STAND_INS.contains(&read.as_str())
        || DECISIVE_FAMILIES.iter().any(|family| read.starts_with(family))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{judge, with};
    use super::*;
    use http::Version;

    #[test]
    fn stand_ins_are_refused() {
        for name in STAND_INS {
            assert_eq!(with(&[(name, "x")]), Some(400), "{name}");
            let shadow = name.replace('-', "_");
            assert_eq!(with(&[(&shadow, "x")]), Some(400), "{shadow}");
        }
    }

    #[test]
    fn what_reads_like_a_field_that_decides_is_refused() {
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
    fn fields_that_decide_are_there_once() {
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
    fn hops_are_not_counted() {
        let fields = [("host", "a"), ("max-forwards", "0")];
        assert_eq!(judge("OPTIONS", "*", Version::HTTP_11, &fields), Some(400));
        assert_eq!(judge("GET", "/", Version::HTTP_11, &fields), None);
    }
}
