//! The fields of one connection, which are removed on the way (RFC 9110, 7.6.1). Pure.
//! Invariant: a caller can't use `Connection` to remove a field that the gateway adds, or one that
//! an instance decides by.

use http::{
    HeaderName, Method, Version,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE},
    request::Parts,
};

use super::{Refused, at_most_one, fields, members};

/// Fields of a connection. They are removed whether `Connection` names them or not.
const NAMES: [&str; 7] =
    ["close", "keep-alive", "upgrade", "te", "trailer", "http2-settings", "proxy-connection"];

/// Fields that the gateway adds, beside the sensitive ones.
const ADDED: [&str; 3] = ["traceparent", "tracestate", "grpc-timeout"];

/// Fields that HTTP/2 forbids (RFC 9113, 8.2.2).
static HTTP_1_ONLY: [HeaderName; 5] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TRANSFER_ENCODING,
    UPGRADE,
];

pub(super) fn check(parts: &Parts) -> Result<(), Refused> {
    let headers = &parts.headers;
    if parts.version == Version::HTTP_2 && HTTP_1_ONLY.iter().any(|name| headers.contains_key(name))
    {
        return Err(Refused::bad("HTTP/2 has no connection fields"));
    }
    if !members(headers, &CONNECTION).all(may_be_named) {
        return Err(Refused::bad("`Connection` names a field that is not the connection's own"));
    }
    check_upgrade(parts)
}

/// Returns true for a field that `Connection` may name, which removes it (RFC 9110, 7.6.1): not a
/// sensitive one, nor one that the gateway adds.
fn may_be_named(name: &[u8]) -> bool {
    if NAMES.iter().any(|known| is(name, known)) {
        return true;
    }
    let name = HeaderName::from_bytes(name);
    name.is_ok_and(|name| !fields::is_sensitive(&name) && !ADDED.contains(&name.as_str()))
}

/// Checks an upgrade. To WebSockets it is a `GET` without a body (RFC 6455, 4.1): the bytes behind
/// it belong to the other protocol. Other upgrades are dropped and the request passes, as RFC 9110,
/// 7.8, allows.
fn check_upgrade(parts: &Parts) -> Result<(), Refused> {
    let headers = &parts.headers;
    let Some(protocol) = at_most_one(headers, &UPGRADE, "there is more than one upgrade")? else {
        return Ok(());
    };
    if !members(headers, &CONNECTION).any(|name| is(name, "upgrade")) {
        return Err(Refused::bad("`Connection` does not name the upgrade"));
    }
    let body = headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    if is(protocol.as_bytes(), "websocket") && (parts.method != Method::GET || body) {
        return Err(Refused::bad("an upgrade is a GET without a body"));
    }
    Ok(())
}

fn is(token: &[u8], known: &str) -> bool {
    token.eq_ignore_ascii_case(known.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{judge, with};
    use super::*;

    #[test]
    fn connection_may_name_its_own_fields() {
        for names in [
            "close",
            "Keep-Alive",
            "keep-alive, Upgrade",
            "Upgrade, HTTP2-Settings",
            "TE, close",
            "",
            ", close,",
            "x-anything",
            "close, X-Hop-1, accept-language",
            "proxy-connection",
        ] {
            assert_eq!(with(&[("connection", names)]), None, "{names:?}");
        }
        assert_eq!(with(&[("connection", "close"), ("connection", "te")]), None);
    }

    #[test]
    fn connection_may_name_no_sensitive_field() {
        for name in [
            "traceparent",
            "sec-websocket-key",
            "proxy-authorization",
            "x_forwarded_for",
            "authorization",
            "Authorization",
            "cookie",
            "host",
            "content-length",
            "content-type",
            "transfer-encoding",
            "x-waypost-subject",
            "x-forwarded-for",
            "forwarded",
            "via",
            "close, authorization",
            "close authorization",
            "close;x",
            "\"close\"",
        ] {
            assert_eq!(with(&[("connection", name)]), Some(400), "{name:?}");
        }
        assert_eq!(with(&[("connection", "close"), ("connection", "cookie")]), Some(400));
    }

    #[test]
    fn connection_may_name_te() {
        for codings in ["trailers", "Trailers", "gzip", "trailers, deflate;q=0.5", "chunked", ""] {
            let fields = [("host", "a"), ("te", codings), ("connection", "te")];
            assert_eq!(with(&fields[1..]), None, "{codings:?}");
            assert_eq!(judge("GET", "/", Version::HTTP_10, &fields), None, "{codings:?}");
        }
    }

    #[test]
    fn connection_must_name_the_upgrade() {
        assert_eq!(with(&[("upgrade", "websocket"), ("connection", "Upgrade")]), None);
        assert_eq!(with(&[("upgrade", "websocket")]), Some(400));
        assert_eq!(with(&[("upgrade", "websocket"), ("connection", "close")]), Some(400));
        let two = [("upgrade", "h2c"), ("upgrade", "websocket"), ("connection", "upgrade")];
        assert_eq!(with(&two), Some(400));
    }

    #[test]
    fn an_upgrade_has_no_body() {
        let upgrade = [("host", "a"), ("upgrade", "WebSocket"), ("connection", "upgrade")];
        let judge = |method, more: &[(&str, &str)]| {
            let fields: Vec<_> = upgrade.iter().chain(more).copied().collect();
            judge(method, "/", Version::HTTP_11, &fields)
        };
        assert_eq!(judge("GET", &[("content-length", "0")]), None);
        assert_eq!(judge("GET", &[("content-length", "5")]), Some(400));
        assert_eq!(judge("GET", &[("transfer-encoding", "chunked")]), Some(400));
        assert_eq!(judge("POST", &[]), Some(400));
    }

    #[test]
    fn an_offer_of_http_2_passes() {
        let offer = [
            ("connection", "Upgrade, HTTP2-Settings"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA"),
            ("content-length", "5"),
        ];
        assert_eq!(with(&offer), None);
    }

    #[test]
    fn http_2_has_no_connection_fields() {
        for (name, value) in [
            ("connection", "close"),
            ("keep-alive", "5"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
        ] {
            let fields = [("host", "a"), (name, value)];
            assert_eq!(judge("GET", "/", Version::HTTP_2, &fields), Some(400), "{name}");
        }
    }
}
