//! Large heads and trailers: one over a limit fails alone, with a clear error.

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response, uri::PathAndQuery};
use http_body_util::StreamBody;
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::watch};
use tonic::{Code, Status, body::Body, client::Grpc, transport::Channel};
use tonic_prost::ProstCodec;
use waypost_testing::greeter::{GreetRequest, GreetResponse};

use crate::support::{Acted, Gateway, soon, whole};

/// Fails with details of `x-size` bytes, at once or, by `x-late`, after a message.
async fn fail(request: Request<Incoming>) -> Acted {
    let size = request.headers()["x-size"].to_str().unwrap().parse().unwrap();
    let details = Bytes::from(vec![7; size]);
    let status = Status::with_details(Code::InvalidArgument, "many fields are wrong", details);
    if !request.headers().contains_key("x-late") {
        return Ok(status.into_http());
    }
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers).unwrap();
    let message = Frame::data(Bytes::from_static(&[0; 5]));
    let frames = [message, Frame::trailers(trailers)].map(Ok::<_, Status>);
    let mut response = Response::new(Body::new(StreamBody::new(stream::iter(frames))));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}

/// The status of a call that fails with details of this size.
async fn failed(client: &mut Grpc<Channel>, size: usize, late: bool) -> Status {
    client.ready().await.unwrap();
    let mut request = tonic::Request::new(GreetRequest::default());
    request.metadata_mut().insert("x-size", size.into());
    if late {
        request.metadata_mut().insert("x-late", 1.into());
    }
    let codec = ProstCodec::<GreetRequest, GreetResponse>::default();
    let path = PathAndQuery::from_static("/greeter.Greeter/Fail");
    soon(client.unary(request, path, codec)).await.unwrap_err()
}

#[tokio::test]
async fn too_large_status_details_are_replaced_by_a_status() {
    let gateway = Gateway::new("").await;
    let instance = gateway.instance("greeter.Greeter", "a", fail).await;
    let endpoint = Channel::from_shared(format!("http://{}", gateway.running.address())).unwrap();
    let channel = endpoint.http2_max_header_list_size(1 << 20).connect().await.unwrap();
    let mut client = Grpc::new(channel);
    for late in [false, true] {
        for size in [0, 13_000, 48_500, 150_000] {
            let status = failed(&mut client, size, late).await;
            assert_eq!(status.code(), Code::InvalidArgument, "{size} {status:?}");
            assert_eq!(status.details().len(), size);
        }
        // As many in a row as would count for an instance that fails.
        for size in [210_000, 800_000, 210_000, 800_000, 210_000, 210_000] {
            let status = failed(&mut client, size, late).await;
            assert_eq!(status.code(), Code::ResourceExhausted, "{size} {status:?}");
            assert!(status.message().contains("the limit is 262144"), "{status:?}");
        }
    }
    assert_eq!(instance.seen().len(), 20, "none is sent again");
}

#[tokio::test]
async fn response_over_a_limit_is_a_502_that_names_it() {
    let gateway = Gateway::new("").await;
    let act = async |request: Request<Incoming>| {
        let mut response = Response::new(Body::empty());
        match request.uri().path() {
            "/many" => {
                for _ in 0..260 {
                    response.headers_mut().append("x-many", HeaderValue::from_static("1"));
                }
            }
            "/large" => {
                let large = HeaderValue::from_bytes(&[b'x'; 300_000]).unwrap();
                response.headers_mut().insert("x-large", large);
            }
            _ => {}
        }
        Ok(response)
    };
    let instance = gateway.instance("orders", "a", act).await;
    for (path, limit) in [("/orders/many", "256 fields"), ("/orders/large", "262144")] {
        for _ in 0..6 {
            let answer = gateway.get(path).await;
            assert_eq!(answer.status, 502, "{path}");
            assert_eq!(answer.json()["title"], "Bad response");
            let detail = answer.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains(limit), "{detail}");
        }
        assert_eq!(gateway.get("/orders/small").await.status, 200);
    }
    assert_eq!(instance.seen().len(), 14, "none is sent again");
}

#[tokio::test]
async fn large_request_head_over_http2_fails_alone() {
    let gateway = Gateway::new("").await;
    let (release, released) = watch::channel(false);
    let act = move |_| {
        let mut released = released.clone();
        async move {
            released.wait_for(|released| *released).await.unwrap();
            Ok(Response::new(Body::empty()))
        }
    };
    let instance = gateway.instance("orders", "a", act).await;
    let stream = TcpStream::connect(gateway.running.address()).await.unwrap();
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let request = |bytes: usize| {
        let request = Request::get("http://gateway/orders/7").header("x-large", "x".repeat(bytes));
        request.body(Body::empty()).unwrap()
    };
    let waiting = sender.send_request(request(1));
    instance.until_asked(1).await;
    for bytes in [70_000, 100_000, 250_000] {
        let answer = whole(soon(sender.send_request(request(bytes))).await.unwrap()).await;
        assert_eq!(answer.status, 431, "{bytes}");
        assert!(answer.json()["detail"].as_str().unwrap().contains("64 KiB"));
    }
    release.send(true).unwrap();
    assert_eq!(soon(waiting).await.unwrap().status(), 200);
    assert_eq!(instance.seen().len(), 1);
}
