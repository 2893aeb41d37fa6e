//! Compressed responses.

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response};
use hyper::body::{Frame, Incoming};
use tonic::body::Body;

use crate::support::{Acted, Answer, Gateway, frames, full, orders};

/// Much of the same.
const TEXT: &[u8] = &[b'a'; 4_096];

async fn ask(gateway: &Gateway, accepted: Option<&str>) -> Answer {
    let mut request = Request::post("/orders");
    if let Some(accepted) = accepted {
        request = request.header("accept-encoding", accepted);
    }
    gateway.send(request.body(full(TEXT)).unwrap()).await
}

#[tokio::test]
async fn responses_are_compressed_for_callers_that_accept_it() {
    let gateway = Gateway::new("compression = true").await;
    let _instance = orders(&gateway).await;
    for encoding in ["gzip", "br"] {
        let answer = ask(&gateway, Some(encoding)).await;
        assert_eq!(answer.header("content-encoding"), Some(encoding));
        assert_eq!(answer.header("vary"), Some("accept-encoding"));
        assert!(answer.body.len() < TEXT.len() / 10, "{}", answer.body.len());
    }
    for accepted in [None, Some("identity"), Some("zstd")] {
        let answer = ask(&gateway, accepted).await;
        assert_eq!(answer.header("content-encoding"), None);
        assert_eq!(answer.body, TEXT);
    }
}

#[tokio::test]
async fn responses_are_not_compressed_by_default() {
    let gateway = Gateway::new("").await;
    let _instance = orders(&gateway).await;
    let answer = ask(&gateway, Some("gzip")).await;
    assert_eq!(answer.header("content-encoding"), None);
    assert_eq!(answer.body, TEXT);
}

/// Fields that describe a body, and one that does not.
const FIELDS: [(&str, &str); 6] = [
    ("content-digest", "sha-256=:AAAA:"),
    ("repr-digest", "sha-256=:BBBB:"),
    ("digest", "SHA-256=AAAA"),
    ("content-md5", "AAAA"),
    ("accept-ranges", "bytes"),
    ("x-own", "1"),
];

/// An instance that responds as the request's path directs: a status, a tag, and more.
async fn described(request: Request<Incoming>) -> Acted {
    let path: Vec<_> = request.uri().path().split('/').skip(1).collect();
    let [status, tag, more] = path[..] else { return Err("no such path") };
    let mut answer = Response::builder().status(status);
    if tag != "none" {
        let tag = if tag == "weak" { "W/\"weak\"".to_owned() } else { tag.replace("%22", "\"") };
        answer = answer.header("etag", tag);
    }
    if more != "-" {
        answer = answer.header("cache-control", more.replace('+', ", "));
    }
    for (name, value) in FIELDS {
        answer = answer.header(name, value);
    }
    let accepted = request.headers().get_all("accept-encoding").iter();
    for value in accepted {
        answer = answer.header("x-accepted", value);
    }
    let body = if status == "304" { Body::empty() } else { full(TEXT) };
    Ok(answer.body(body).unwrap())
}

async fn described_gateway() -> (Gateway, crate::support::Instance) {
    let gateway = Gateway::new("compression = true").await;
    let instance = gateway.instance("orders", "a", described).await;
    (gateway, instance)
}

async fn ask_for(gateway: &Gateway, path: &str, fields: &[(&str, &str)]) -> Answer {
    let mut request = Request::get(format!("/orders/{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    gateway.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn headers_about_the_bytes_stay_correct() {
    let (gateway, _instance) = described_gateway().await;
    let plain = ask_for(&gateway, "200/%22a1%22/-", &[]).await;
    assert_eq!(plain.header("etag"), Some("\"a1\""));
    for (name, value) in FIELDS {
        assert_eq!(plain.header(name), Some(value));
    }
    for coding in ["gzip", "br"] {
        for (tag, expected) in
            [("%22a1%22", Some("W/\"a1\"")), ("weak", Some("W/\"weak\"")), ("none", None)]
        {
            let path = format!("200/{tag}/-");
            let answer = ask_for(&gateway, &path, &[("accept-encoding", coding)]).await;
            assert_eq!(answer.header("content-encoding"), Some(coding));
            assert_eq!(answer.header("etag"), expected);
            assert_eq!(answer.header("x-own"), Some("1"));
            for (name, _) in &FIELDS[..5] {
                assert_eq!(answer.header(name), None, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn responses_with_no_transform_are_unchanged() {
    let (gateway, _instance) = described_gateway().await;
    for (path, fields) in [
        ("200/%22a1%22/no-transform", &[("accept-encoding", "gzip")][..]),
        ("200/%22a1%22/public+No-Transform", &[("accept-encoding", "br")]),
        ("200/%22a1%22/-", &[("accept-encoding", "gzip"), ("cache-control", "no-transform")]),
        ("206/%22a1%22/-", &[("accept-encoding", "gzip"), ("range", "bytes=0-1,5-6")]),
    ] {
        let answer = ask_for(&gateway, path, fields).await;
        assert_eq!(answer.header("content-encoding"), None, "{path}");
        assert_eq!(answer.header("etag"), Some("\"a1\""));
        assert_eq!(answer.body, TEXT);
        for (name, value) in FIELDS {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
    }
}

#[tokio::test]
async fn compressed_response_can_be_revalidated() {
    let (gateway, _instance) = described_gateway().await;
    for (known, expected) in [
        ("W/\"a1\"", "W/\"a1\""),
        ("\"b\", W/\"a1\"", "W/\"a1\""),
        ("\"a1\"", "\"a1\""),
        ("*", "\"a1\""),
        ("W/\"b\"", "\"a1\""),
    ] {
        let fields = [("accept-encoding", "gzip"), ("if-none-match", known)];
        let answer = ask_for(&gateway, "304/%22a1%22/-", &fields).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("etag")),
            (304, Some(expected)),
            "{known}"
        );
    }
}

#[tokio::test]
async fn unacceptable_codings_are_left_to_the_instance() {
    let (gateway, _instance) = described_gateway().await;
    for accepted in
        ["identity;q=0, zstd", "*;q=0", "zstd, *;q=0.000", "identity; q=0", "gzip;q=0, *;Q=0"]
    {
        let answer = ask_for(&gateway, "200/weak/-", &[("accept-encoding", accepted)]).await;
        assert_eq!(answer.status, 200, "{accepted}");
        assert_eq!(answer.header("x-accepted"), Some(accepted));
        assert_eq!(answer.body, TEXT);
    }
    let fields = [("accept-encoding", "identity;q=0, gzip")];
    let answer = ask_for(&gateway, "200/weak/-", &fields).await;
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
}

#[tokio::test]
async fn digests_are_dropped_from_header_and_trailers() {
    let gateway = Gateway::new("compression = true").await;
    let trailed = async |_| {
        let trailers = [("content-digest", "sha-256=:AAAA:"), ("x-checksum", "7")];
        let trailers: HeaderMap = trailers
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .into_iter()
            .collect();
        let data = Frame::data(Bytes::from_static(TEXT));
        let body = frames(stream::iter([data, Frame::trailers(trailers)]));
        Ok(Response::builder().header("trailer", "content-digest, x-checksum").body(body).unwrap())
    };
    let _instance = gateway.instance("orders", "a", trailed).await;
    for (accepted, digest) in [("gzip", None), ("identity", Some("sha-256=:AAAA:"))] {
        let request =
            Request::get("/orders").header("te", "trailers").header("accept-encoding", accepted);
        let request = request.body(Body::empty()).unwrap();
        let answer = crate::support::whole(gateway.http2().send(request).await).await;
        let trailers = answer.trailers.unwrap();
        let trailer = |name: &str| trailers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(trailer("content-digest"), digest, "{accepted}");
        assert_eq!(trailer("x-checksum"), Some("7"));
    }
}
