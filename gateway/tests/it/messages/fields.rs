//! Requests on their way to an instance, and responses on their way back.

use http::{Method, Request, Response, StatusCode, Version, header};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::body::Body;

use crate::support::{Gateway, full, orders, soon, whole};

#[tokio::test]
async fn the_first_segment_of_the_path_names_the_service() {
    let gateway = Gateway::new("").await;
    let instance = orders(&gateway).await;
    for (asked, seen) in [
        ("/orders/7?page=2&x=%20y", "/7?page=2&x=%20y"),
        ("/orders", "/"),
        ("/orders/", "/"),
        ("/orders?page=2", "/?page=2"),
        ("/orders/a%20b/", "/a%20b/"),
    ] {
        assert_eq!(gateway.get(asked).await.status, 200, "{asked}");
        assert_eq!(instance.last().path, seen, "{asked}");
    }
}

#[tokio::test]
async fn every_http_version_works_on_both_sides() {
    let gateway = Gateway::new(
        "implicit = true
        [[routes]]
        path = '/new'
        service = 'orders'
        http2 = true",
    )
    .await;
    let instance = orders(&gateway).await;
    for caller in [gateway.http1(), gateway.http2()] {
        for (path, version) in [("/orders/7", Version::HTTP_11), ("/new/7", Version::HTTP_2)] {
            let request = Request::put(path).body(full("four")).unwrap();
            let answer = whole(caller.send(request).await).await;
            assert_eq!((answer.status, answer.text()), (StatusCode::OK, "four"));
            let seen = instance.last();
            assert_eq!((seen.version, &seen.method), (version, &Method::PUT), "{caller:?}");
            assert_eq!(seen.header("content-length"), Some("4"));
        }
    }
}

#[tokio::test]
async fn response_is_returned_unchanged() {
    let gateway = Gateway::new("").await;
    let _instance = gateway
        .instance("orders", "a", async |_| {
            let answer = Response::builder().status(StatusCode::IM_A_TEAPOT);
            let answer = answer.header("set-cookie", "a=1").header("set-cookie", "b=2");
            Ok(answer.header("x-own", "yes").body(full("short and stout")).unwrap())
        })
        .await;
    for caller in [gateway.http1(), gateway.http2()] {
        let request = Request::get("/orders").body(Body::empty()).unwrap();
        let answer = whole(caller.send(request).await).await;
        assert_eq!(answer.status, StatusCode::IM_A_TEAPOT);
        assert_eq!(answer.text(), "short and stout");
        assert_eq!(answer.header("x-own"), Some("yes"));
        let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
    }
}

#[tokio::test]
async fn instance_receives_forwarded_headers() {
    let gateway = Gateway::new("").await;
    let instance = orders(&gateway).await;
    for caller in [gateway.http1(), gateway.http2()] {
        let request = Request::get("/orders").header("host", "shop.example");
        let request = request.header("x-forwarded-for", "192.0.2.1").body(Body::empty()).unwrap();
        whole(caller.send(request).await).await;
        let seen = instance.last();
        assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"), "a caller is not believed");
        assert_eq!(seen.header("x-forwarded-host"), Some("shop.example"));
        assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
        assert!(seen.header("via").is_some());
    }
}

#[tokio::test]
async fn head_response_has_a_length_and_no_body() {
    let gateway = Gateway::new("").await;
    let instance = gateway
        .instance("orders", "a", async |_| {
            let answer = Response::builder().header(header::CONTENT_LENGTH, 1234);
            Ok(answer.body(Body::empty()).unwrap())
        })
        .await;
    for caller in [gateway.http1(), gateway.http2()] {
        let request = Request::head("/orders").body(Body::empty()).unwrap();
        let answer = whole(caller.send(request).await).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-length"), Some("1234"), "{caller:?}");
        assert!(answer.body.is_empty());
        assert_eq!(instance.last().method, Method::HEAD);
    }
    for line in gateway.told(2).await {
        assert_eq!((&line["bytes"], &line["complete"]), (&0.into(), &true.into()));
    }
}

#[tokio::test]
async fn response_without_a_body_gets_none() {
    let gateway = Gateway::new("").await;
    let _instance = gateway
        .instance("orders", "a", async |request: Request<_>| {
            let status: u16 = request.uri().path()[1..].parse().unwrap();
            let answer = Response::builder().status(status).header(header::ETAG, "\"7\"");
            Ok(answer.body(Body::empty()).unwrap())
        })
        .await;
    for caller in [gateway.http1(), gateway.http2()] {
        for status in [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED] {
            let path = format!("/orders/{}", status.as_u16());
            let request = Request::get(path).body(Body::empty()).unwrap();
            let answer = whole(caller.send(request).await).await;
            assert_eq!(answer.status, status);
            assert_eq!(answer.header("etag"), Some("\"7\""));
            assert_eq!(answer.header("transfer-encoding"), None);
            assert!(answer.body.is_empty());
        }
    }
}

#[tokio::test]
async fn expect_continue_gets_its_interim_response() {
    let gateway = Gateway::new("").await;
    let instance = orders(&gateway).await;
    let mut stream = TcpStream::connect(gateway.running.address()).await.unwrap();
    let head = "POST /orders HTTP/1.1\r\nHost: shop\r\nContent-Length: 4\r\n\
                Expect: 100-continue\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let expected = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut word = [0; 25];
    soon(stream.read_exact(&mut word)).await.unwrap();
    assert_eq!(&word, expected);
    stream.write_all(b"four").await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("four"), "{answer}");
    assert_eq!(instance.last().header("expect"), None, "it was met");
}
