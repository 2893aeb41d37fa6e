//! Refuses ambiguous requests: those that an instance could read in another way than the gateway.
//! Hyper refuses malformed HTTP before; `tests/it/hostile` covers both. Pure: a request is checked,
//! never changed.

mod authority;
mod connection;
mod fields;
mod framing;
mod path;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, request::Parts};
use thiserror::Error;

pub(crate) use authority::is_authority;

/// The most fields of a request. HTTP/2 limits their bytes alone, so that nearly empty ones could
/// be many. Most instances accept 100, and the gateway adds some.
pub(crate) const FIELDS_MAX: usize = 80;

/// The most bytes of all names and values together.
pub(crate) const FIELDS_BYTES_MAX: usize = 64 * 1024;

const TOO_LARGE: &str = "the header is too large: at most 80 fields and 64 KiB are taken";

/// The most bytes of path and query together.
pub(crate) const TARGET_BYTES_MAX: usize = 16 * 1024;

/// The methods that any route passes on.
const METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];

/// The methods that no route passes on, of those in capital letters. `TRACE` and `TRACK` return the
/// fields that were added on the way, `CONNECT` opens a tunnel, `PRI` begins a connection of
/// HTTP/2.
const NEVER_SERVED: [&str; 4] = ["CONNECT", "PRI", "TRACE", "TRACK"];

/// [`METHODS`] as the value of `Allow`.
pub(crate) const ALLOW: HeaderValue =
    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// The refusal of a request.
///
/// Invariant: the reason repeats nothing that the caller sent, so that it is safe in responses and
/// logs.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("{reason}")]
pub(crate) struct Refused {
    /// A client error, or 501, 505 or 508.
    pub(crate) status: StatusCode,
    /// A clause without a full stop.
    pub(crate) reason: &'static str,
}

/// The unusual parts of a request, which are refused unless its route allows them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Unusual {
    /// True for a method other than those that every route passes on.
    pub(crate) method: bool,
    /// The features of the path.
    pub(crate) path: PathFeatures,
}

/// Features of a path that are refused, unless its route allows them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct PathFeatures {
    /// A slash that is percent-encoded (`%2F`).
    pub(crate) encoded_slashes: bool,
    /// A segment that is empty (`//`).
    pub(crate) empty_segments: bool,
}

impl Unusual {
    /// Returns true where nothing is unusual, as in most requests.
    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
    }
}

impl PathFeatures {
    /// Checks that `allowed`, those of a route, has all features of this path.
    pub(crate) fn check_allowed(self, allowed: Self) -> Result<(), Refused> {
        if self.encoded_slashes && !allowed.encoded_slashes {
            return Err(Refused::bad("the path has an encoded slash"));
        }
        if self.empty_segments && !allowed.empty_segments {
            return Err(Refused::bad("the path has an empty segment"));
        }
        Ok(())
    }
}

impl Refused {
    pub(crate) const fn new(status: StatusCode, reason: &'static str) -> Self {
        Self { status, reason }
    }

    const fn bad(reason: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason)
    }
}

/// Checks that every instance will read a request as the gateway does. Returns what its route must
/// allow.
///
/// # Errors
/// The first refusal, in the order: method, target, size, path, host, length, connection, other
/// fields.
pub(crate) fn check(parts: &Parts) -> Result<Unusual, Refused> {
    check_version(parts.version)?;
    if is_never_served(&parts.method) {
        return Err(METHOD_NOT_SERVED);
    }
    check_target(&parts.method, &parts.uri)?;
    check_size(&parts.headers)?;
    let path = match parts.uri.path() {
        "*" => PathFeatures::default(),
        path => path::check(path)?,
    };
    authority::check(parts)?;
    framing::check(parts)?;
    connection::check(parts)?;
    fields::check(parts)?;
    Ok(Unusual { method: !METHODS.contains(&parts.method), path })
}

/// The refusal of a method that the route of a request does not name.
pub(crate) const METHOD_NOT_SERVED: Refused =
    Refused::new(StatusCode::NOT_IMPLEMENTED, "the method is not served");

/// Returns true for a method that no route can allow: a dangerous one, or one with small letters,
/// which instances could take for capital ones.
pub(crate) fn is_never_served(method: &Method) -> bool {
    let name = method.as_str();
    NEVER_SERVED.contains(&name) || name.bytes().any(|byte| byte.is_ascii_lowercase())
}

fn check_version(version: Version) -> Result<(), Refused> {
    match version {
        Version::HTTP_10 | Version::HTTP_11 | Version::HTTP_2 => Ok(()),
        _ => {
            let status = StatusCode::HTTP_VERSION_NOT_SUPPORTED;
            Err(Refused::new(status, "the version of HTTP is not served"))
        }
    }
}

/// Checks for a form of RFC 9112, 3.2: origin form, absolute form, or `*` for `OPTIONS`.
fn check_target(method: &Method, uri: &Uri) -> Result<(), Refused> {
    let Some(target) = uri.path_and_query() else {
        return Err(Refused::bad("the target is not a path"));
    };
    if target.as_str().len() > TARGET_BYTES_MAX {
        return Err(Refused::new(StatusCode::URI_TOO_LONG, "the target is too long"));
    }
    match uri.scheme_str() {
        None if uri.authority().is_some() => return Err(Refused::bad("the target is not a path")),
        None | Some("http" | "https") => {}
        Some(_) => return Err(Refused::bad("the scheme of the target is not served")),
    }
    match target.as_str() {
        "*" if method == Method::OPTIONS => Ok(()),
        path if path.starts_with('/') => Ok(()),
        _ => Err(Refused::bad("the path does not begin with a slash")),
    }
}

fn check_size(headers: &HeaderMap) -> Result<(), Refused> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers.len() > FIELDS_MAX || bytes > FIELDS_BYTES_MAX {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Refused::new(status, TOO_LARGE));
    }
    Ok(())
}

/// Returns the one value of a field, if any. Of two, one party could read the first, another the
/// last.
fn at_most_one<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    reason: &'static str,
) -> Result<Option<&'a HeaderValue>, Refused> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() { Err(Refused::bad(reason)) } else { Ok(first) }
}

/// Returns the members of a list over all lines of the field, without empty ones (RFC 9110, 5.6.1).
pub(crate) fn members<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    /// Returns the status with which a head is refused, if it is.
    pub(super) fn judge(
        method: &str,
        target: &str,
        version: Version,
        fields: &[(&str, &str)],
    ) -> Option<u16> {
        let mut request = Request::builder().method(method).uri(target).version(version);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let checked = check(&parts).and_then(|unusual| {
            unusual.path.check_allowed(PathFeatures::default())?;
            if unusual.method { Err(METHOD_NOT_SERVED) } else { Ok(()) }
        });
        checked.err().map(|refused| refused.status.as_u16())
    }

    /// The same for a `GET` over HTTP/1.1 with a `Host` and `fields`.
    pub(super) fn with(fields: &[(&str, &str)]) -> Option<u16> {
        let fields: Vec<_> = [("host", "a")].into_iter().chain(fields.iter().copied()).collect();
        judge("GET", "/orders/7", Version::HTTP_11, &fields)
    }

    fn line(method: &str, target: &str) -> Option<u16> {
        judge(method, target, Version::HTTP_11, &[("host", "a")])
    }

    #[test]
    fn the_methods_of_an_api_pass() {
        for method in METHODS {
            assert_eq!(line(method.as_str(), "/orders/7"), None, "{method}");
        }
    }

    #[test]
    fn allow_lists_the_methods() {
        let names: Vec<_> = METHODS.iter().map(Method::as_str).collect();
        assert_eq!(ALLOW, names.join(", "));
    }

    #[test]
    fn other_methods_are_not_served() {
        for method in ["TRACE", "TRACK", "CONNECT", "DEBUG", "PROPFIND", "get", "Get", "PRI"] {
            assert_eq!(line(method, "/orders/7"), Some(501), "{method}");
        }
    }

    #[test]
    fn a_route_can_allow_other_methods_but_for_some() {
        let checked = |method: &str| {
            let request = Request::builder().method(method).uri("/").header("host", "a");
            check(&request.body(()).unwrap().into_parts().0).map(|unusual| unusual.method)
        };
        for method in ["PROPFIND", "QUERY", "M-SEARCH", "DEBUG", "X"] {
            assert_eq!(checked(method), Ok(true), "{method}");
        }
        for method in ["TRACE", "TRACK", "CONNECT", "PRI", "propfind", "Query"] {
            assert_eq!(checked(method), Err(METHOD_NOT_SERVED), "{method}");
        }
        assert_eq!(checked("GET"), Ok(false));
    }

    #[test]
    fn other_versions_of_http_are_not_served() {
        for version in [Version::HTTP_09, Version::HTTP_3] {
            assert_eq!(judge("GET", "/", version, &[("host", "a")]), Some(505));
        }
    }

    #[test]
    fn an_asterisk_is_for_options() {
        assert_eq!(line("OPTIONS", "*"), None);
        assert_eq!(line("GET", "*"), Some(400));
    }

    #[test]
    fn a_target_is_a_path_or_has_a_scheme_that_is_served() {
        assert_eq!(line("GET", "http://a/orders/7"), None);
        assert_eq!(line("GET", "https://a/orders/7"), None);
        assert_eq!(line("GET", "http://a"), None);
        assert_eq!(line("GET", "ftp://a/orders/7"), Some(400));
        assert_eq!(line("GET", "a:80"), Some(400));
        assert_eq!(line("GET", "a"), Some(400));
        // Over HTTP/2 a target is not parsed as a whole.
        let mut parts = Uri::default().into_parts();
        parts.path_and_query = Some("?x=1".parse().unwrap());
        let query = Uri::from_parts(parts).unwrap();
        assert!(check_target(&Method::GET, &query).is_err());
        assert_eq!(line("GET", "http://a?x=1"), Some(400));
    }

    #[test]
    fn a_target_may_be_long_but_not_too_long() {
        let query = |len: usize| format!("/o?{}", "x".repeat(len - 3));
        assert_eq!(line("GET", &query(TARGET_BYTES_MAX)), None);
        assert_eq!(line("GET", &query(TARGET_BYTES_MAX + 1)), Some(414));
    }

    #[test]
    fn fields_are_bounded_in_number_and_in_bytes() {
        let many = |count: usize| vec![("x-a", "1"); count];
        assert_eq!(with(&many(FIELDS_MAX - 1)), None);
        assert_eq!(with(&many(FIELDS_MAX)), Some(431));
        let value = "x".repeat(FIELDS_BYTES_MAX - "host".len() - "a".len() - "x-a".len());
        assert_eq!(with(&[("x-a", &value)]), None);
        assert_eq!(with(&[("x-aa", &value)]), Some(431));
    }

    #[test]
    fn a_list_is_read_over_all_its_lines() {
        let mut headers = HeaderMap::new();
        headers.append("connection", HeaderValue::from_static("a, ,b"));
        headers.append("connection", HeaderValue::from_static(",c\t"));
        let members: Vec<_> = members(&headers, &http::header::CONNECTION).collect();
        assert_eq!(members, [b"a", b"b", b"c"]);
    }
}
