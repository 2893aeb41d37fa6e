//! Heads over HTTP/1 that must not be forwarded. Heads that the guard refuses come with their
//! status; heads that hyper refuses first are here too, to detect when it no longer does.

use crate::hostile::support::case::{Case, Expected};

use Expected::{Refused, Status};

pub fn cases() -> Vec<Case> {
    let mut cases = lines();
    cases.extend(paths());
    cases.extend(hosts());
    cases.extend(lengths());
    cases.extend(connections());
    cases.extend(fields());
    cases.extend(sizes());
    cases
}

/// A request for a target.
fn get(name: &'static str, target: &str, expected: Expected) -> Case {
    let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    Case::new(name, head, expected)
}

/// A request with more lines. Bytes after it are no body unless a line announces one.
fn with(name: &'static str, lines: &str, expected: Expected) -> Case {
    let head = format!("GET /orders/7 HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
    Case::new(name, head, expected)
}

/// Request lines, and the bytes between them and the fields.
fn lines() -> Vec<Case> {
    let host = "Host: a\r\n\r\n";
    let line = |name, line: &str, expected| Case::new(name, format!("{line}{host}"), expected);
    vec![
        line("no method", " /orders/7 HTTP/1.1\r\n", Status(400)),
        line("unknown method", "PROPFIND /orders/7 HTTP/1.1\r\n", Status(501)),
        line("method in small letters", "get /orders/7 HTTP/1.1\r\n", Status(501)),
        line("TRACE", "TRACE /orders/7 HTTP/1.1\r\n", Status(501)),
        line("TRACK", "TRACK /orders/7 HTTP/1.1\r\n", Status(501)),
        line("CONNECT", "CONNECT a:80 HTTP/1.1\r\n", Status(501)),
        line("CONNECT with a path", "CONNECT /orders/7 HTTP/1.1\r\n", Status(501)),
        line("method with a control character", "G\x01T /orders/7 HTTP/1.1\r\n", Status(400)),
        line("two spaces", "GET  /orders/7 HTTP/1.1\r\n", Status(400)),
        line("space in the target", "GET /orders/7 8 HTTP/1.1\r\n", Status(400)),
        line("tab for a space", "GET\t/orders/7\tHTTP/1.1\r\n", Status(400)),
        line("no version", "GET /orders/7\r\n", Status(400)),
        line("HTTP/0.9", "GET /orders/7 HTTP/0.9\r\n", Status(400)),
        line("HTTP/1.2", "GET /orders/7 HTTP/1.2\r\n", Status(400)),
        line("HTTP/3.0", "GET /orders/7 HTTP/3.0\r\n", Status(400)),
        line("HTTP/2.0 as text", "GET /orders/7 HTTP/2.0\r\n", Status(400)),
        line("another protocol", "GET /orders/7 RTSP/1.0\r\n", Status(400)),
        line("bare CR after the line", "GET /orders/7 HTTP/1.1\rX: y\r\n", Status(400)),
        line("fold before the first field", "GET /orders/7 HTTP/1.1\r\n X: y\r\n", Status(400)),
        Case::new("TLS", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03".to_vec(), Refused),
        Case::new("random bytes", vec![0xff, 0x00, 0x13, 0x0a, 0x0d, 0x0a], Refused),
        line("asterisk", "GET * HTTP/1.1\r\n", Status(400)),
        line("authority for a target", "GET a:80 HTTP/1.1\r\n", Status(400)),
        line("target without a slash", "GET orders/7 HTTP/1.1\r\n", Status(400)),
        line("query for a target", "GET ?x=1 HTTP/1.1\r\n", Status(400)),
    ]
}

fn paths() -> Vec<Case> {
    vec![
        get("encoded slash", "/orders/a%2fb", Status(400)),
        get("encoded backslash", "/orders/a%5Cb", Status(400)),
        get("backslash", "/orders\\7", Status(400)),
        get("dots", "/orders/../admin", Status(400)),
        get("dots at the end", "/orders/..", Status(400)),
        get("one dot", "/orders/./7", Status(400)),
        get("encoded dots", "/orders/%2e%2E/admin", Status(400)),
        get("half encoded dots", "/orders/.%2e/admin", Status(400)),
        get("dots with parameters", "/orders/..;/admin", Status(400)),
        get("dots and an encoded semicolon", "/orders/..%3b/admin", Status(400)),
        get("dots encoded twice", "/orders/%252e%252e/admin", Status(400)),
        get("slash encoded twice", "/orders/..%252fadmin", Status(400)),
        get("dots encoded three times", "/orders/%25252e%25252e/admin", Status(400)),
        get("empty segment", "/orders//admin", Status(400)),
        get("host in the path", "//evil.example/orders", Status(400)),
        get("encoded NUL", "/orders/7%00.png", Status(400)),
        get("encoded line break", "/orders/7%0d%0aX:%20y", Status(400)),
        get("encoded tab", "/orders/7%09", Status(400)),
        get("NUL", "/orders/7\0", Status(400)),
        get("DEL", "/orders/7\x7f", Status(400)),
        get("bad digits", "/orders/%zz", Status(400)),
        get("bare percent", "/orders/%", Status(400)),
        get("one digit", "/orders/%2", Status(400)),
        get("sixteen bits", "/orders/%u002e%u002e/admin", Status(400)),
        get("overlong slash", "/orders/..%c0%afadmin", Status(400)),
        get("overlong dots", "/orders/%c0%ae%c0%ae/admin", Status(400)),
        get("overlong slash of three bytes", "/orders/..%e0%80%afadmin", Status(400)),
        get("raw UTF-8", "/orders/M\u{fc}nchen", Status(400)),
        Case::new("raw Latin-1", b"GET /orders/M\xfc HTTP/1.1\r\nHost: a\r\n\r\n", Status(400)),
    ]
}

fn hosts() -> Vec<Case> {
    let hosts = |name, hosts: &str, expected| {
        Case::new(name, format!("GET /orders/7 HTTP/1.1\r\n{hosts}\r\n\r\n"), expected)
    };
    let absolute = |name, target: &str, host: &str| {
        Case::new(name, format!("GET {target} HTTP/1.1\r\n{host}\r\n"), Status(400))
    };
    vec![
        hosts("no host", "X: y", Status(400)),
        hosts("empty host", "Host:", Status(400)),
        hosts("two hosts", "Host: a\r\nHost: b", Status(400)),
        hosts("the same host twice", "Host: a\r\nHost: a", Status(400)),
        hosts("two hosts on a line", "Host: a, b", Status(400)),
        hosts("user in the host", "Host: evil@a", Status(400)),
        hosts("path in the host", "Host: a/orders", Status(400)),
        hosts("space in the host", "Host: a b", Status(400)),
        hosts("tab in the host", "Host: a\tb", Status(400)),
        hosts("NUL in the host", "Host: a\0", Status(400)),
        hosts("port that is none", "Host: a:80@b", Status(400)),
        hosts("host with a scheme", "Host: http://a", Status(400)),
        absolute("absolute form for another host", "http://b/orders/7", "Host: a\r\n"),
        absolute("absolute form without a host", "http://a/orders/7", ""),
        absolute("absolute form with a user", "http://u:p@a/orders/7", "Host: a\r\n"),
        absolute("absolute form of another scheme", "gopher://a/orders/7", "Host: a\r\n"),
        absolute("absolute form of a file", "file:///orders/7", "Host: a\r\n"),
    ]
}

/// The smuggling of requests in heads. Each is followed by what would be smuggled.
fn lengths() -> Vec<Case> {
    let smuggled = "0\r\n\r\nGET /orders/smuggled HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let post = |name, lines: &str| {
        let head = format!("POST /orders/7 HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{smuggled}");
        Case::new(name, head, Status(400))
    };
    let old = format!(
        "POST /orders/7 HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{smuggled}"
    );
    vec![
        post("two codings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        post("identity after chunked", "Transfer-Encoding: chunked, identity"),
        post("identity before chunked", "Transfer-Encoding: identity, chunked"),
        post(
            "identity on its own line",
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        ),
        post("identity", "Transfer-Encoding: identity\r\nContent-Length: 5"),
        post("gzip and chunked", "Transfer-Encoding: gzip, chunked"),
        post("chunked twice", "Transfer-Encoding: chunked, chunked"),
        post("another word", "Transfer-Encoding: xchunked"),
        post("parameter", "Transfer-Encoding: chunked;x=y"),
        post("quoted", "Transfer-Encoding: \"chunked\""),
        post("empty coding", "Transfer-Encoding:"),
        post("comma", "Transfer-Encoding: ,chunked"),
        post("vertical tab", "Transfer-Encoding: \x0bchunked"),
        post("NUL before", "Transfer-Encoding: \0chunked"),
        post("space before the colon", "Transfer-Encoding : chunked"),
        post("tab before the colon", "Transfer-Encoding\t: chunked"),
        post("space before the name", "X: y\r\n Transfer-Encoding: chunked"),
        post("folded", "Transfer-Encoding:\r\n chunked"),
        post("folded value", "X: y\r\n\tz"),
        post("underscore", "Transfer_Encoding: chunked\r\nContent-Length: 0"),
        post("behind a bare CR", "X: y\rTransfer-Encoding: chunked"),
        post("two lengths", "Content-Length: 5\r\nContent-Length: 6"),
        post("two lengths on a line", "Content-Length: 5, 5"),
        post("signed length", "Content-Length: +5"),
        post("negative length", "Content-Length: -1"),
        post("hexadecimal length", "Content-Length: 0x5"),
        post("empty length", "Content-Length:"),
        post("length with a space", "Content-Length: 1 0"),
        post("length that overflows", "Content-Length: 18446744073709551617"),
        with("the largest length", "Content-Length: 18446744073709551615", Refused),
        post("space before the colon of a length", "Content-Length : 5"),
        post("no name", ": 5"),
        post("no colon", "Content-Length 5"),
        post("NUL in a name", "X\0: y"),
        post("NUL in a value", "X: y\0z"),
        post("name with a character that is none", "X(y): z"),
        Case::new("coding in HTTP/1.0", old, Status(400)),
    ]
}

fn connections() -> Vec<Case> {
    vec![
        with("connection names credentials", "Connection: authorization", Status(400)),
        with("connection names the subject", "Connection: close, X-Waypost-Subject", Status(400)),
        with("connection names the caller", "Connection: x-forwarded-for", Status(400)),
        with("connection names the host", "Connection: host", Status(400)),
        with("connection names the length", "Connection: content-length", Status(400)),
        with("connection names no field", "Connection: close authorization", Status(400)),
        with("connection names a trace", "Connection: close, Traceparent", Status(400)),
        with("upgrade alone", "Upgrade: websocket", Status(400)),
        with(
            "two upgrades",
            "Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket",
            Status(400),
        ),
        with(
            "upgrade with a body",
            "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 5",
            Status(400),
        ),
        with("another expectation", "Expect: 200-ok", Status(417)),
        with("two expectations", "Expect: 100-continue\r\nExpect: 100-continue", Status(400)),
    ]
}

fn fields() -> Vec<Case> {
    let ranges = format!("Range: bytes={}", vec!["0-"; 500].join(","));
    let hops = "OPTIONS /orders/7 HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n";
    vec![
        with("httpoxy", "Proxy: http://evil.example", Status(400)),
        with("method override", "X-HTTP-Method-Override: DELETE", Status(400)),
        with("method", "X-HTTP-Method: DELETE", Status(400)),
        with("another override", "X-Method-Override: DELETE", Status(400)),
        with("original URL", "X-Original-URL: /admin", Status(400)),
        with("rewritten URL", "X-Rewrite-URL: /admin", Status(400)),
        with("underscored caller", "X_Forwarded_For: 10.0.0.1", Status(400)),
        with("underscored subject", "X_Waypost_Subject: admin", Status(400)),
        with("dotted caller", "X.Forwarded.For: 10.0.0.1", Status(400)),
        with("two credentials", "Authorization: Bearer a\r\nAuthorization: Bearer b", Status(400)),
        with("two types", "Content-Type: a/b\r\nContent-Type: c/d", Status(400)),
        with("hundreds of ranges", &ranges, Status(416)),
        Case::new("hops", hops, Status(400)),
    ]
}

fn sizes() -> Vec<Case> {
    let value = |len: usize| format!("X: {}", "y".repeat(len));
    let many = |count: usize| vec!["X: y"; count].join("\r\n");
    let target = |len: usize| format!("/orders/{}", "x".repeat(len));
    let spaced = format!("X:{}y", " ".repeat(80 * 1024));
    vec![
        with("giant value", &value(80 * 1024), Status(431)),
        with("giant name", &format!("{}: y", "x".repeat(80 * 1024)), Refused),
        with("giant space", &spaced, Status(431)),
        with("giant head that never ends", &value(1024 * 1024), Status(431)),
        with("80 fields beside the host", &many(80), Status(431)),
        with("5,000 fields", &many(5000), Status(431)),
        get("target that is too long", &target(17 * 1024), Status(414)),
        get("target that is much too long", &target(200 * 1024), Refused),
        Case::new("giant method", "X".repeat(200 * 1024), Refused),
        Case::new("nothing but line breaks", "\r\n".repeat(100 * 1024), Refused),
    ]
}
