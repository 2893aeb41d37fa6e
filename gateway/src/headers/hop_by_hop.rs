//! Hop-by-hop fields: they are removed on the way to an instance and back (RFC 9110, 7.6.1). Pure.
//! Invariant: the fields stay that give the end of a body or the host of a request; the guard has
//! refused a `Connection` that names others.

use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode, Version,
    header::{
        ALT_SVC, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
        CONTENT_TYPE, COOKIE, EXPECT, FORWARDED, HOST, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
        UPGRADE, VIA,
    },
};

use http_body::Body;

use crate::guard::members;

static HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Covers `Proxy-Connection` too, which many send and no RFC defines.
const PROXY: &str = "proxy-";

/// The prefix of fields in which instances get the caller's identity. Only the gateway may set
/// them.
const INTERNAL: &str = "x-waypost-";

/// Fields that stay even where `Connection` names them.
static PROTECTED: [HeaderName; 4] = [CONTENT_LENGTH, CONTENT_TYPE, HOST, SET_COOKIE];

/// Fields that must not be trailers (RFC 9110, 6.5.1): software that merges trailers into the
/// header would obey them.
static FORBIDDEN_TRAILERS: [HeaderName; 15] = [
    AUTHORIZATION,
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    COOKIE,
    EXPECT,
    FORWARDED,
    HOST,
    SET_COOKIE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The upgrade of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Upgrade {
    /// The connection carries further requests.
    None,
    /// The connection becomes a WebSocket, if the instance responds with 101.
    WebSocket,
}

/// Removes the hop-by-hop fields of a request that came over `version`, and all fields that only
/// the gateway may set. Returns the upgrade that the request asks for.
///
/// An upgrade to WebSockets stays, others are dropped, as a server may. Of `Te` only `trailers`
/// stays, but not for HTTP/1.0, which has no trailers; over HTTP/1.1 [`frame_for_http1`] names it
/// in `Connection`. `Expect` is removed: hyper has met it. Lines of `Cookie` are joined (RFC 9113,
/// 8.2.3).
pub(crate) fn strip_request(headers: &mut HeaderMap, version: Version) -> Upgrade {
    let upgrade = requested_upgrade(headers, version);
    let trailers = version != Version::HTTP_10
        && members(headers, &TE).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
    strip(headers);
    remove_prefixed(headers, INTERNAL);
    headers.remove(EXPECT);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    join_cookies(headers);
    restore(headers, upgrade);
    upgrade
}

/// Adds the fields that a request needs over HTTP/1.1, after [`strip_request`]: the transfer coding
/// of a body of unknown length, without which hyper would omit the body of a `GET`, and `Te` in
/// `Connection`.
pub(crate) fn frame_for_http1(headers: &mut HeaderMap, body: &impl Body) {
    let known = headers.contains_key(CONTENT_LENGTH) || body.size_hint().exact().is_some();
    if !known && !body.is_end_stream() {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if headers.contains_key(TE) {
        headers.append(CONNECTION, HeaderValue::from_static("te"));
    }
}

/// Removes the hop-by-hop fields of a response; `upgrade` is that of its request. Removes `Alt-Svc`
/// too, which would lead callers past the gateway.
pub(crate) fn strip_response(headers: &mut HeaderMap, status: StatusCode, upgrade: Upgrade) {
    strip(headers);
    headers.remove(ALT_SVC);
    if status == StatusCode::SWITCHING_PROTOCOLS {
        restore(headers, upgrade);
    }
}

/// Removes the forbidden trailers of a body, in either direction.
pub(crate) fn strip_trailers(trailers: &mut HeaderMap) {
    for name in &FORBIDDEN_TRAILERS {
        trailers.remove(name);
    }
    trailers.remove(VIA);
    trailers.remove(&KEEP_ALIVE);
    for prefix in [PROXY, INTERNAL, "x-forwarded-"] {
        remove_prefixed(trailers, prefix);
    }
}

/// Returns the upgrade that a request asks for.
fn requested_upgrade(headers: &HeaderMap, version: Version) -> Upgrade {
    let named = members(headers, &CONNECTION).any(|name| name.eq_ignore_ascii_case(b"upgrade"));
    let mut protocols = members(headers, &UPGRADE);
    let websocket =
        protocols.next().is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
    if version == Version::HTTP_11 && named && websocket && protocols.next().is_none() {
        Upgrade::WebSocket
    } else {
        Upgrade::None
    }
}

fn restore(headers: &mut HeaderMap, upgrade: Upgrade) {
    if upgrade == Upgrade::WebSocket {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = members(headers, &CONNECTION)
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(|name| !PROTECTED.contains(name))
        .collect();
    for name in named {
        headers.remove(name);
    }
    // A length beside a transfer coding is void, and would count without it.
    if headers.remove(TRANSFER_ENCODING).is_some() {
        headers.remove(CONTENT_LENGTH);
    }
    for name in [&CONNECTION, &KEEP_ALIVE, &TE, &UPGRADE, &HTTP2_SETTINGS] {
        headers.remove(name);
    }
    remove_prefixed(headers, PROXY);
}

/// Removes all fields whose names begin with `prefix`.
pub(crate) fn remove_prefixed(headers: &mut HeaderMap, prefix: &str) {
    let names: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(prefix)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Joins the lines of `Cookie`, which HTTP/2 splits to compress them better.
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    let (Some(first), Some(second)) = (lines.next(), lines.next()) else { return };
    let lines: Vec<&[u8]> = [first, second].into_iter().chain(lines).collect();
    // Joined values are a value.
    if let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        pin::Pin,
        task::{Context, Poll},
    };

    use bytes::Bytes;
    use http_body::Frame;
    use http_body_util::Full;

    use super::*;

    /// A body of unknown length.
    struct Unknown {
        ended: bool,
    }

    impl Body for Unknown {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(None)
        }

        fn is_end_stream(&self) -> bool {
            self.ended
        }
    }

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    /// Returns the fields that are left of a request, ordered by name.
    fn left(fields: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut headers = headers(fields);
        strip_request(&mut headers, Version::HTTP_11);
        let mut left: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        left.sort();
        left
    }

    const WEBSOCKET: [(&str, &str); 3] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn hop_by_hop_fields_are_removed() {
        let nothing: [&str; 0] = [];
        for (name, value) in [
            ("connection", "close"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic YTpi"),
            ("proxy-authenticate", "Basic"),
            ("proxy-anything", "x"),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAEAAEAAAAI"),
            ("expect", "100-continue"),
            ("x-waypost-subject", "admin"),
        ] {
            assert_eq!(left(&[(name, value)]), nothing, "{name}");
        }
    }

    #[test]
    fn end_to_end_fields_stay() {
        let fields = [
            ("accept", "*/*"),
            ("authorization", "Bearer x"),
            ("content-length", "5"),
            ("host", "a"),
            ("trailer", "x-checksum"),
        ];
        let expected: Vec<_> =
            fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        assert_eq!(left(&fields), expected);
    }

    #[test]
    fn fields_that_connection_names_are_removed() {
        let fields =
            [("connection", "close, X-Hop"), ("connection", "y"), ("x-hop", "1"), ("y", "2")];
        assert_eq!(left(&fields), [""; 0]);
    }

    #[test]
    fn connection_cannot_remove_the_framing() {
        let fields =
            [("connection", "host, content-length"), ("host", "a"), ("content-length", "5")];
        assert_eq!(left(&fields), ["content-length: 5", "host: a"]);
    }

    #[test]
    fn te_keeps_trailers_alone() {
        assert_eq!(left(&[("te", "gzip, Trailers"), ("connection", "te")]), ["te: trailers"]);
    }

    #[test]
    fn a_length_beside_a_transfer_coding_is_removed() {
        assert_eq!(left(&[("transfer-encoding", "chunked"), ("content-length", "5")]), [""; 0]);
    }

    #[test]
    fn cookies_are_joined() {
        assert_eq!(left(&[("cookie", "a=1"), ("cookie", "b=2; c=3")]), ["cookie: a=1; b=2; c=3"]);
        assert_eq!(left(&[("cookie", "a=1")]), ["cookie: a=1"]);
    }

    #[test]
    fn an_upgrade_to_websockets_stays() {
        let mut headers = headers(&WEBSOCKET);
        assert_eq!(strip_request(&mut headers, Version::HTTP_11), Upgrade::WebSocket);
        assert_eq!(headers["connection"], "upgrade");
        assert_eq!(headers["upgrade"], "websocket");
        assert!(headers.contains_key("sec-websocket-key"));
    }

    #[test]
    fn other_upgrades_are_dropped() {
        for protocols in ["h2c", "TLS/1.0", "websocket, h2c", "h2c, websocket"] {
            let mut headers = headers(&[("connection", "upgrade"), ("upgrade", protocols)]);
            assert_eq!(strip_request(&mut headers, Version::HTTP_11), Upgrade::None);
            assert!(headers.is_empty(), "{protocols}");
        }
        let mut unnamed = headers(&[("upgrade", "websocket")]);
        assert_eq!(strip_request(&mut unnamed, Version::HTTP_11), Upgrade::None);
        for version in [Version::HTTP_10, Version::HTTP_2] {
            let mut headers = headers(&WEBSOCKET);
            assert_eq!(strip_request(&mut headers, version), Upgrade::None);
            assert!(!headers.contains_key("upgrade"));
        }
    }

    #[test]
    fn a_body_of_unknown_length_is_chunked() {
        let framed = |fields: &[(&'static str, &'static str)], body: &Unknown| {
            let mut headers = headers(fields);
            frame_for_http1(&mut headers, body);
            headers.contains_key("transfer-encoding")
        };
        assert!(framed(&[], &Unknown { ended: false }));
        assert!(!framed(&[], &Unknown { ended: true }));
        assert!(!framed(&[("content-length", "5")], &Unknown { ended: false }));
        let mut headers = HeaderMap::new();
        frame_for_http1(&mut headers, &Full::new(Bytes::from_static(b"hello")));
        assert!(headers.is_empty());
    }

    #[test]
    fn connection_names_te_beside_an_upgrade() {
        let mut headers = headers(&WEBSOCKET);
        headers.insert("te", HeaderValue::from_static("trailers"));
        strip_request(&mut headers, Version::HTTP_11);
        frame_for_http1(&mut headers, &Full::<Bytes>::default());
        let names: Vec<_> = members(&headers, &CONNECTION).collect();
        assert_eq!(names, [&b"upgrade"[..], b"te"]);
    }

    #[test]
    fn a_response_keeps_a_requested_upgrade() {
        let switched = [("connection", "Upgrade"), ("upgrade", "websocket")];
        let is_kept = |status, upgrade| {
            let mut headers = headers(&switched);
            strip_response(&mut headers, status, upgrade);
            headers.contains_key("upgrade") && headers.contains_key("connection")
        };
        assert!(is_kept(StatusCode::SWITCHING_PROTOCOLS, Upgrade::WebSocket));
        assert!(!is_kept(StatusCode::SWITCHING_PROTOCOLS, Upgrade::None));
        assert!(!is_kept(StatusCode::OK, Upgrade::WebSocket));
    }

    #[test]
    fn a_response_loses_its_hop_by_hop_fields() {
        let mut headers = headers(&[
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("transfer-encoding", "chunked"),
            ("alt-svc", "h3=\":443\""),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("x-waypost-instance", "i-1"),
        ]);
        strip_response(&mut headers, StatusCode::OK, Upgrade::None);
        assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
        assert_eq!(headers["x-waypost-instance"], "i-1");
        assert_eq!(headers.len(), 3);
    }

    #[test]
    fn forbidden_trailers_are_removed() {
        let mut trailers = headers(&[
            ("grpc-status", "0"),
            ("x-checksum", "7"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("host", "b"),
            ("authorization", "Bearer x"),
            ("cookie", "a=1"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-waypost-subject", "admin"),
            ("via", "1.1 a"),
        ]);
        strip_trailers(&mut trailers);
        let left: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["grpc-status", "x-checksum"]);
    }
}
