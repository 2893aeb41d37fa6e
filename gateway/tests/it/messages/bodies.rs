//! Bodies pass through piece by piece, in both directions, with what follows them.

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Frame;

use crate::support::{Caller, Gateway, fed, frames, full, next_data, orders, pieces, soon, whole};

const MIB: usize = 1 << 20;

/// A gateway whose `/old` leads to `orders` in HTTP/1.1, and `/new` in HTTP/2.
async fn both() -> Gateway {
    Gateway::new(
        "limits.body = 0
        [[routes]]
        path = '/old'
        service = 'orders'
        [[routes]]
        path = '/new'
        service = 'orders'
        http2 = true",
    )
    .await
}

fn ways(gateway: &Gateway) -> [(Caller, &'static str); 4] {
    let (http1, http2) = (gateway.http1(), gateway.http2());
    [(http1, "/old"), (http1, "/new"), (http2, "/old"), (http2, "/new")]
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let gateway = both().await;
    let _instance = orders(&gateway).await;
    for (caller, path) in ways(&gateway) {
        let (feed, body) = fed();
        feed.send(Frame::data(Bytes::from_static(b"begin"))).await.unwrap();
        let answer = caller.send(Request::post(path).body(body).unwrap()).await;
        let mut echo = answer.into_body();
        assert_eq!(next_data(&mut echo).await.unwrap(), "begin", "{caller:?} {path}");
        for piece in ["one", "two", "three"] {
            feed.send(Frame::data(piece.into())).await.unwrap();
            assert_eq!(next_data(&mut echo).await.unwrap(), piece, "{caller:?} {path}");
        }
        drop(feed);
        assert_eq!(next_data(&mut echo).await, None);
    }
    for line in gateway.told(4).await {
        assert_eq!((&line["bytes"], &line["complete"]), (&16.into(), &true.into()));
    }
}

#[tokio::test]
async fn instance_may_respond_before_it_has_the_body() {
    let gateway = both().await;
    let _instance = gateway
        .instance("orders", "a", async |request: Request<hyper::body::Incoming>| {
            let mut body = request.into_body();
            let begin = body.frame().await.unwrap().unwrap().into_data().unwrap();
            tokio::spawn(body.collect());
            Ok(Response::new(full(begin)))
        })
        .await;
    for (caller, path) in ways(&gateway) {
        let (feed, body) = fed();
        feed.send(Frame::data(Bytes::from_static(b"begin"))).await.unwrap();
        let answer = caller.send(Request::post(path).body(body).unwrap()).await;
        assert_eq!(whole(answer).await.text(), "begin", "{caller:?} {path}");
        drop(feed);
    }
}

#[tokio::test]
async fn long_bodies_pass_without_a_limit() {
    static PIECE: [u8; MIB / 16] = [7; MIB / 16];
    let gateway = both().await;
    let _instance = orders(&gateway).await;
    let calls = ways(&gateway).map(|(caller, path)| async move {
        let request = Request::post(path).body(pieces(&PIECE, 32 * 16)).unwrap();
        let mut echo = caller.send(request).await.into_body();
        let mut length = 0;
        while let Some(frame) = soon(echo.frame()).await {
            length += frame.unwrap().into_data().unwrap().len();
        }
        assert_eq!(length, 32 * MIB, "{caller:?} {path}");
    });
    futures_util::future::join_all(calls).await;
}

#[tokio::test]
async fn trailers_pass_in_both_directions() {
    let gateway = both().await;
    let _instance = gateway
        .instance("orders", "a", async |request: Request<hyper::body::Incoming>| {
            let body = request.into_body().collect().await.unwrap();
            let sum = body.trailers().map(|trailers| trailers["x-sum"].clone());
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", sum.expect("trailers come to the instance"));
            let answer = [Frame::data(Bytes::from_static(b"answer")), Frame::trailers(trailers)];
            let answer = frames(stream::iter(answer));
            Ok(Response::builder().header("trailer", "x-sum").body(answer).unwrap())
        })
        .await;
    for (caller, path) in ways(&gateway) {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "12".parse().unwrap());
        let body = [Frame::data(Bytes::from_static(b"body")), Frame::trailers(trailers)];
        let request = Request::post(path).header("trailer", "x-sum").header("te", "trailers");
        let request = request.body(frames(stream::iter(body))).unwrap();
        let answer = whole(caller.send(request).await).await;
        assert_eq!(answer.text(), "answer", "{caller:?} {path}");
        let trailers = answer.trailers.expect("trailers come back");
        assert_eq!(trailers["x-sum"], "12", "{caller:?} {path}");
    }
}

#[tokio::test]
async fn every_method_may_have_a_body_of_unknown_length() {
    let gateway = both().await;
    let _instance = orders(&gateway).await;
    for method in [Method::GET, Method::DELETE, Method::PATCH] {
        for (caller, path) in ways(&gateway) {
            let request = Request::builder().method(&method).uri(path);
            // Else hyper would not send it.
            let request = match caller {
                Caller::Http1(_) => request.header("transfer-encoding", "chunked"),
                Caller::Http2(_) => request,
            };
            let answer = caller.send(request.body(pieces(b"ab", 2)).unwrap()).await;
            assert_eq!(whole(answer).await.text(), "abab", "{method} {caller:?} {path}");
        }
    }
}
