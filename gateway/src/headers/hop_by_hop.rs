//! What belongs to one hop and is taken away on the way to an instance and back (RFC 9110, 7.6.1). Pure;
//! it must never take away what tells where a body ends or whom a request is for.
//!
//! Requests passed the [`guard`](crate::guard) before, so that `Connection` names nothing of the ends.

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

/// Also `Proxy-Connection`, which many send and none defines.
const PROXY: &str = "proxy-";

/// What the gateway tells instances about a caller. Nobody else may.
const OURS: &str = "x-waypost-";

/// Stays, whoever names it in `Connection`.
static KEPT: [HeaderName; 4] = [CONTENT_LENGTH, CONTENT_TYPE, HOST, SET_COOKIE];

/// What a trailer must not say (RFC 9110, 6.5.1): whoever merges it into the header would believe it.
static NO_TRAILERS: [HeaderName; 15] = [
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

/// What becomes of the connection after an exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Upgrade {
    /// It carries other requests.
    None,
    /// It becomes a WebSocket, if the instance answers 101.
    WebSocket,
}

/// Takes from a request what belongs to the hop it came over, and everything that only the gateway may
/// say. `version` is that of this hop.
///
/// An upgrade to WebSockets stays whole, others are dropped, as a server may. Of `Te` only `trailers` stays,
/// but for HTTP/1.0, which has none: what goes to the instance over HTTP/1.1 has to name it in `Connection`. `Expect` goes, as it was met when
/// the body was asked for. Lines of `Cookie` become one (RFC 9113, 8.2.3).
///
/// ```
/// use http::{HeaderMap, HeaderValue, Version};
/// use waypost_gateway::headers::hop_by_hop::{self, Upgrade};
///
/// let mut headers = HeaderMap::new();
/// headers.insert("accept", HeaderValue::from_static("text/html"));
/// headers.insert("connection", HeaderValue::from_static("keep-alive"));
/// headers.insert("keep-alive", HeaderValue::from_static("timeout=5"));
/// assert_eq!(hop_by_hop::strip_request(&mut headers, Version::HTTP_11), Upgrade::None);
/// assert_eq!(headers.len(), 1);
/// ```
pub fn strip_request(headers: &mut HeaderMap, version: Version) -> Upgrade {
    let upgrade = requested_upgrade(headers, version);
    let trailers = version != Version::HTTP_10
        && members(headers, &TE).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
    strip(headers);
    remove_prefixed(headers, OURS);
    headers.remove(EXPECT);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    join_cookies(headers);
    restore(headers, upgrade);
    upgrade
}

/// Adds to a request that goes to an instance over HTTP/1.1 what that hop needs: the coding of a body
/// whose length is not known, without which hyper would leave the body of a `GET` out, and the name of
/// `Te` in `Connection`. To be called after [`strip_request`].
pub fn frame_for_http1(headers: &mut HeaderMap, body: &impl Body) {
    let known = headers.contains_key(CONTENT_LENGTH) || body.size_hint().exact().is_some();
    if !known && !body.is_end_stream() {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if headers.contains_key(TE) {
        headers.append(CONNECTION, HeaderValue::from_static("te"));
    }
}

/// Takes from an answer what belongs to the hop to the instance. `upgrade` is what its request asked
/// for.
///
/// `Alt-Svc` goes too: it would lead callers past the gateway.
pub fn strip_response(headers: &mut HeaderMap, status: StatusCode, upgrade: Upgrade) {
    strip(headers);
    headers.remove(ALT_SVC);
    if status == StatusCode::SWITCHING_PROTOCOLS {
        restore(headers, upgrade);
    }
}

/// Takes from the trailers of a body, in either direction, what only a header may say.
pub fn strip_trailers(trailers: &mut HeaderMap) {
    for name in &NO_TRAILERS {
        trailers.remove(name);
    }
    trailers.remove(VIA);
    trailers.remove(&KEEP_ALIVE);
    for prefix in [PROXY, OURS, "x-forwarded-"] {
        remove_prefixed(trailers, prefix);
    }
}

/// What a request asks its connection to become.
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
        .filter(|name| !KEPT.contains(name))
        .collect();
    for name in named {
        headers.remove(name);
    }
    // A length beside a coding means nothing, and would without it.
    if headers.remove(TRANSFER_ENCODING).is_some() {
        headers.remove(CONTENT_LENGTH);
    }
    for name in [&CONNECTION, &KEEP_ALIVE, &TE, &UPGRADE, &HTTP2_SETTINGS] {
        headers.remove(name);
    }
    remove_prefixed(headers, PROXY);
}

/// Removes all fields whose names begin so.
pub(crate) fn remove_prefixed(headers: &mut HeaderMap, prefix: &str) {
    let names: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(prefix)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Makes one line of several lines of `Cookie`, into which HTTP/2 splits one to compress it better.
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    let (Some(first), Some(second)) = (lines.next(), lines.next()) else { return };
    let lines: Vec<&[u8]> = [first, second].into_iter().chain(lines).collect();
    // What is joined from values is one.
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

    /// A body that does not tell its length.
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

    /// The fields that are left of a request, in the order of their names.
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
    fn what_belongs_to_a_hop_is_taken_away() {
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
    fn what_belongs_to_the_ends_stays() {
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
    fn what_the_connection_names_is_taken_away() {
        let fields =
            [("connection", "close, X-Hop"), ("connection", "y"), ("x-hop", "1"), ("y", "2")];
        assert_eq!(left(&fields), [""; 0]);
    }

    #[test]
    fn the_connection_cannot_name_what_frames_a_message() {
        let fields =
            [("connection", "host, content-length"), ("host", "a"), ("content-length", "5")];
        assert_eq!(left(&fields), ["content-length: 5", "host: a"]);
    }

    #[test]
    fn accepted_trailers_are_passed_on_without_other_codings() {
        assert_eq!(left(&[("te", "gzip, Trailers"), ("connection", "te")]), ["te: trailers"]);
    }

    #[test]
    fn a_length_goes_with_a_coding() {
        assert_eq!(left(&[("transfer-encoding", "chunked"), ("content-length", "5")]), [""; 0]);
    }

    #[test]
    fn lines_of_cookies_become_one() {
        assert_eq!(left(&[("cookie", "a=1"), ("cookie", "b=2; c=3")]), ["cookie: a=1; b=2; c=3"]);
        assert_eq!(left(&[("cookie", "a=1")]), ["cookie: a=1"]);
    }

    #[test]
    fn an_upgrade_to_websockets_stays_whole() {
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
    fn accepted_trailers_are_named_beside_an_upgrade() {
        let mut headers = headers(&WEBSOCKET);
        headers.insert("te", HeaderValue::from_static("trailers"));
        strip_request(&mut headers, Version::HTTP_11);
        frame_for_http1(&mut headers, &Full::<Bytes>::default());
        let names: Vec<_> = members(&headers, &CONNECTION).collect();
        assert_eq!(names, [&b"upgrade"[..], b"te"]);
    }

    #[test]
    fn an_answer_keeps_an_upgrade_that_was_asked_for() {
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
    fn an_answer_loses_what_belongs_to_its_hop() {
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
    fn trailers_say_nothing_that_a_header_decides() {
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
