//! Requests over HTTP/2 that must not be forwarded: above all those that would be something else
//! over HTTP/1.1, which the instance gets.

use crate::hostile::support::{
    case::{Case, Expected},
    frames::{self, Block, END_HEADERS, END_STREAM, data, headers},
};

use Expected::{BodyCut, Refused, Status};

pub fn cases() -> Vec<Case> {
    let mut cases = targets();
    cases.extend(fields());
    cases.extend(bodies());
    cases
}

/// A request without a body.
fn head(name: &'static str, block: &Block, expected: Expected) -> Case {
    let bytes = [frames::opening(), headers(block, END_HEADERS | END_STREAM)].concat();
    Case::new(name, bytes, expected)
}

/// A request with a body of 5 bytes.
fn body(name: &'static str, block: &Block, expected: Expected) -> Case {
    let stream = [headers(block, END_HEADERS), data(b"hello", END_STREAM)];
    Case::new(name, [frames::opening(), stream.concat()].concat(), expected)
}

fn targets() -> Vec<Case> {
    let path = |name, path: &str, expected| head(name, &Block::get(path), expected);
    let method =
        |name, method: &str, expected| head(name, &Block::request(method, "/orders/7"), expected);
    let pseudo = |fields: &[(&str, &str)]| {
        fields.iter().fold(Block::default(), |block, (name, value)| block.field(name, value))
    };
    let authority = |name, authority: &str| {
        let fields =
            [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", authority)];
        head(name, &pseudo(&fields), Refused)
    };
    let (get, http) = ((":method", "GET"), (":scheme", "http"));
    let (a, orders) = ((":authority", "a"), (":path", "/orders/7"));
    vec![
        path("path without a slash", "orders/7", Refused),
        path("empty path", "", Refused),
        path("asterisk", "*", Status(400)),
        path("query for a path", "?x=1", Status(400)),
        path("URL for a path", "http://b/orders/7", Refused),
        path("host in the path", "//b/orders/7", Status(400)),
        path("line in the path", "/orders/7 HTTP/1.1\r\nX: y", Refused),
        path("space in the path", "/orders/7 8", Refused),
        path("dots", "/orders/../admin", Status(400)),
        path("encoded dots", "/orders/%2e%2e/admin", Status(400)),
        path("encoded slash", "/orders/a%2fb", Status(400)),
        path("backslash", "/orders\\7", Status(400)),
        method("unknown method", "PROPFIND", Status(501)),
        method("TRACE", "TRACE", Status(501)),
        method("CONNECT with a path", "CONNECT", Refused),
        method("line in the method", "GET / HTTP/1.1\r\nX: y\r\n\r\nGET", Refused),
        head("CONNECT", &pseudo(&[(":method", "CONNECT"), a]), Refused),
        head("no method", &pseudo(&[http, a, orders]), Refused),
        head("no scheme", &pseudo(&[get, a, orders]), Refused),
        head("no path", &pseudo(&[get, http, a]), Refused),
        head("no authority and no host", &pseudo(&[get, http, orders]), Status(400)),
        head("two paths", &Block::get("/orders/7").field(":path", "/orders/8"), Refused),
        head("two authorities", &Block::get("/orders/7").field(":authority", "b"), Refused),
        head("two methods", &Block::get("/orders/7").field(":method", "POST"), Refused),
        head("status", &Block::get("/orders/7").field(":status", "200"), Refused),
        head("unknown pseudo-field", &Block::get("/orders/7").field(":x", "y"), Refused),
        head("pseudo-field behind a field", &pseudo(&[get, http, a, ("x", "y"), orders]), Refused),
        head("another scheme", &pseudo(&[get, (":scheme", "gopher"), a, orders]), Status(400)),
        head("line in the scheme", &pseudo(&[get, (":scheme", "http://b/x?"), a, orders]), Refused),
        authority("user in the authority", "evil@a"),
        authority("path in the authority", "a/orders"),
        authority("empty authority", ""),
        authority("line in the authority", "a\r\nX: y"),
        authority("port that is none", "a:x"),
    ]
}

fn fields() -> Vec<Case> {
    let field = |name, field: &str, value: &str, expected| {
        head(name, &Block::get("/orders/7").field(field, value), expected)
    };
    let many = (0..500).fold(Block::get("/orders/7"), |block, _| block.field("x", "y"));
    let large =
        (0..8).fold(Block::get("/orders/7"), |block, _| block.field("x", "y".repeat(12 * 1024)));
    let endless = [frames::opening(), headers(&large, 0), vec![0; 9]].concat();
    vec![
        field("host that differs", "host", "b", Status(400)),
        field("host with a port that the authority has not", "host", "a:80", Status(400)),
        head(
            "two hosts",
            &Block::get("/orders/7").field("host", "a").field("host", "a"),
            Status(400),
        ),
        field("capital letters", "Host", "a", Refused),
        field("capital letter", "x-Y", "z", Refused),
        field("space in a name", "x y", "z", Refused),
        field("colon in a name", "transfer-encoding: chunked\r\nx", "y", Refused),
        field("line break in a value", "x", "y\r\nTransfer-Encoding: chunked", Refused),
        field("LF in a value", "x", "y\nz", Refused),
        field("NUL in a value", "x", "y\0z", Refused),
        field("empty name", "", "x", Refused),
        field("coding", "transfer-encoding", "chunked", Refused),
        field("connection", "connection", "close", Refused),
        field("keep-alive", "keep-alive", "timeout=5", Refused),
        field("proxy connection", "proxy-connection", "close", Refused),
        field("upgrade", "upgrade", "websocket", Refused),
        field("accepted codings", "te", "gzip", Refused),
        field("accepted codings beside trailers", "te", "trailers, gzip", Refused),
        field("httpoxy", "proxy", "http://evil.example", Status(400)),
        field("method override", "x-http-method-override", "DELETE", Status(400)),
        field("underscored coding", "transfer_encoding", "chunked", Status(400)),
        field("another expectation", "expect", "200-ok", Status(417)),
        head("500 fields", &many, Status(431)),
        head("giant header", &large, Refused),
        Case::new("another frame in the middle of a header", endless, Refused),
    ]
}

fn bodies() -> Vec<Case> {
    let post = || Block::request("POST", "/orders/7");
    let length = |name, length: &str, expected| {
        body(name, &post().field("content-length", length), expected)
    };
    let two = post().field("content-length", "5").field("content-length", "6");
    let same = post().field("content-length", "5").field("content-length", "5");
    vec![
        length("length that is too small", "4", BodyCut),
        length("length that is too large", "6", BodyCut),
        length("no length where there is a body", "0", BodyCut),
        length("signed length", "+5", Refused),
        length("two lengths on a line", "5, 5", Refused),
        length("empty length", "", Refused),
        length("length that is no number", "x", Refused),
        length("length that overflows", "18446744073709551617", Refused),
        body("two lengths", &two, Refused),
        body("the same length twice", &same, Refused),
        head("length without a body", &post().field("content-length", "5"), Refused),
        Case::new(
            "body without a request",
            [frames::opening(), data(b"hello", END_STREAM)].concat(),
            Refused,
        ),
    ]
}
