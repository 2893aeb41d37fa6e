//! Responses of instances that a channel for plain HTTP must survive: large and odd ones, early
//! ones, connections that end. Over loopback; waits for conditions, never for time.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version, header};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tonic::{Code, Status, body::Body};
use tower::Service as _;
use waypost_client::{
    FailureKind, HttpChannel, HttpChannelError, Instance, ServedBy, Service, proto::Status as Up,
};

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it takes too long")
}

/// An instance that serves each connection, with its number, by a function.
async fn raw<F>(serve: impl Fn(usize, TcpStream) -> F + Send + 'static) -> Instance
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(serve(number, stream));
        }
    });
    Instance {
        service: "orders".into(),
        id: "a".into(),
        host: "127.0.0.1".into(),
        port: port.into(),
        status: Up::Up.into(),
        ..Instance::default()
    }
}

/// The head of the next request, without its end.
async fn head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8(head).unwrap())
}

fn length(head: &str) -> usize {
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.map_or(0, |length| length.parse().unwrap())
}

/// An instance that responds to the path `/N` with `respond(N)`.
async fn responding(respond: fn(usize) -> String) -> Instance {
    raw(move |_, mut stream| async move {
        loop {
            let head = head(&mut stream).await?;
            let number = head.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
            stream.write_all(respond(number).as_bytes()).await?;
        }
    })
    .await
}

fn channel(instance: Instance) -> HttpChannel {
    Service::fixed([instance]).http_channel()
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

fn full(method: Method, body: Vec<u8>) -> Request<Body> {
    Request::builder().method(method).uri("/").body(Body::new(Full::from(body))).unwrap()
}

async fn send(
    channel: &HttpChannel,
    request: Request<Body>,
) -> Result<(Response<()>, Bytes), HttpChannelError> {
    let (head, body) = soon(channel.clone().call(request)).await?.into_parts();
    let text = soon(body.collect()).await.unwrap().to_bytes();
    Ok((Response::from_parts(head, ()), text))
}

fn attempts(response: &Response<()>) -> u32 {
    response.extensions().get::<ServedBy>().unwrap().attempts()
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

#[tokio::test]
async fn response_with_too_many_fields_fails_alone() {
    let instance = responding(|fields| {
        let fields: String = (1..fields).map(|field| format!("x-{field}: {field}\r\n")).collect();
        format!("HTTP/1.1 200 OK\r\n{fields}content-length: 2\r\n\r\nhi")
    });
    let channel = channel(instance.await).retry_idempotent(3);
    for _ in 0..30 {
        for fields in [101, 256] {
            let (response, text) = send(&channel, get(&format!("/{fields}"))).await.unwrap();
            assert_eq!((response.headers().len(), text), (fields, "hi".into()));
        }
        let failed = send(&channel, get("/257")).await.unwrap_err();
        assert_eq!((failed.kind(), failed.attempts()), (FailureKind::HeadTooLarge, 1));
        assert!(failed.to_string().contains("more than 256 fields"), "{failed}");
    }
}

#[tokio::test]
async fn response_with_too_large_a_head_fails_alone() {
    let instance = responding(|bytes| {
        let value = "x".repeat(bytes);
        format!("HTTP/1.1 200 OK\r\nx-large: {value}\r\ncontent-length: 2\r\n\r\nhi")
    });
    let channel = channel(instance.await).retry_idempotent(3);
    for _ in 0..10 {
        for bytes in [20_000, 260_000] {
            let (response, _) = send(&channel, get(&format!("/{bytes}"))).await.unwrap();
            assert_eq!(response.headers()["x-large"].len(), bytes);
        }
        for bytes in ["/270000", "/3000000"] {
            let failed = send(&channel, get(bytes)).await.unwrap_err();
            assert_eq!(
                (failed.kind(), failed.attempts()),
                (FailureKind::HeadTooLarge, 1),
                "{failed}"
            );
            assert!(failed.to_string().contains("262144"), "{failed}");
        }
    }
}

#[tokio::test]
async fn repeated_content_length_counts_once() {
    let instance = responding(|number| {
        let lengths = match number {
            0 => "content-length: 2, 2",
            1 => "content-length: 2\r\ncontent-length: 2",
            _ => "content-length: 2,2 , 2\r\ncontent-length: 2",
        };
        format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\nhi")
    });
    let channel = channel(instance.await);
    for path in ["/0", "/1", "/2"] {
        let (response, text) = send(&channel, get(path)).await.unwrap();
        let lengths: Vec<_> = response.headers().get_all(header::CONTENT_LENGTH).iter().collect();
        assert_eq!(lengths, ["2"], "{path}");
        assert_eq!(text, "hi");
    }
}

#[tokio::test]
async fn conflicting_content_lengths_are_refused() {
    let instance = responding(|number| {
        let lengths = ["content-length: 2, 3", "content-length: 2\r\ncontent-length: 3"];
        format!("HTTP/1.1 200 OK\r\n{}\r\n\r\nhi", lengths[number])
    });
    let channel = channel(instance.await);
    for path in ["/0", "/1"] {
        let failed = send(&channel, get(path)).await.unwrap_err();
        assert_eq!(failed.kind(), FailureKind::ConnectionLost);
        let message = failed.to_string();
        assert!(message.contains("not valid HTTP/1.1: invalid content-length"), "{message}");
    }
}

#[tokio::test]
async fn method_that_expects_a_body_sends_content_length_0() {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&heads);
    let instance = raw(move |_, mut stream| {
        let log = Arc::clone(&log);
        async move {
            loop {
                let head = head(&mut stream).await?;
                log.lock().unwrap().push(head.to_ascii_lowercase());
                stream.write_all(OK.as_bytes()).await?;
            }
        }
    });
    let channel = channel(instance.await);
    for method in ["POST", "PUT", "PATCH", "GET", "DELETE", "OPTIONS"] {
        let request = Request::builder().method(method).uri("/").body(Body::empty()).unwrap();
        send(&channel, request).await.unwrap();
        let head = heads.lock().unwrap().pop().unwrap();
        let lengths: Vec<_> = head.lines().filter(|line| line.starts_with("content-l")).collect();
        let expected: &[&str] = if method.starts_with('P') { &["content-length: 0"] } else { &[] };
        assert_eq!(lengths, expected, "{method}");
    }
}

/// An instance that responds to `answers` requests on a connection, and to the next one by writing
/// `last` and closing. Counts all requests.
async fn closing(answers: usize, last: &'static str) -> (Instance, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let instance = raw(move |_, mut stream| {
        let count = Arc::clone(&counted);
        async move {
            for _ in 0..answers {
                let head = head(&mut stream).await?;
                let length = length(&head);
                stream.read_exact(&mut vec![0; length]).await?;
                count.fetch_add(1, Ordering::Relaxed);
                let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{length:07}");
                if head.starts_with("HEAD") {
                    answer.truncate(answer.len() - 7);
                }
                stream.write_all(answer.as_bytes()).await?;
            }
            head(&mut stream).await?;
            count.fetch_add(1, Ordering::Relaxed);
            stream.write_all(last.as_bytes()).await
        }
    });
    (instance.await, count)
}

#[tokio::test]
async fn idempotent_request_survives_the_end_of_a_kept_connection() {
    let (instance, count) = closing(1, "").await;
    let channel = channel(instance);
    // More often than the budget has room for.
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
        for _ in 0..80 {
            let body = if method == Method::PUT { vec![7; 1_000] } else { Vec::new() };
            let (response, text) = send(&channel, full(method.clone(), body)).await.unwrap();
            assert_eq!(attempts(&response), 1, "it counts as the same attempt");
            let expected = match method {
                Method::HEAD => "",
                Method::PUT => "0001000",
                _ => "0000000",
            };
            assert_eq!(text, expected, "{method}");
        }
    }
    // Each but the first went into a connection that ended.
    assert_eq!(count.load(Ordering::Relaxed), 2 * 400 - 1);
}

#[tokio::test]
async fn request_that_may_have_been_served_is_not_sent_again() {
    let (instance, count) = closing(1, "").await;
    let channel = channel(instance);
    let (mut served, mut lost) = (0, 0);
    for body in [Vec::new(), vec![7; 10]].iter().cycle().take(60) {
        for request in [full(Method::POST, body.clone()), full(Method::PATCH, body.clone())] {
            match send(&channel, request).await {
                Ok(_) => served += 1,
                Err(failed) => {
                    assert_eq!(
                        (failed.kind(), failed.attempts()),
                        (FailureKind::ConnectionLost, 1)
                    );
                    lost += 1;
                }
            }
        }
    }
    assert_eq!(count.load(Ordering::Relaxed), served + lost);
    // Once it was surprised, the channel uses no kept connection for them.
    assert_eq!((served, lost), (119, 1));
}

#[tokio::test]
async fn end_of_a_new_connection_is_a_failure() {
    let (instance, count) = closing(0, "").await;
    let failed = send(&channel(instance), get("/")).await.unwrap_err();
    assert_eq!((failed.kind(), failed.attempts()), (FailureKind::ConnectionLost, 1));
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn end_of_a_connection_within_a_response_is_a_failure() {
    for last in ["H", "HTTP/1.1 200 OK\r\nconte", "HTTP/1.1 102 Processing\r\n\r\n"] {
        let (instance, count) = closing(1, last).await;
        let channel = channel(instance);
        send(&channel, get("/")).await.unwrap();
        let failed = send(&channel, get("/")).await.unwrap_err();
        assert_eq!(failed.kind(), FailureKind::ConnectionLost, "{last:?}");
        assert_eq!(count.load(Ordering::Relaxed), 2, "{last:?}");
    }
}

#[tokio::test]
async fn body_that_is_not_buffered_is_not_sent_again() {
    let (instance, count) = closing(1, "").await;
    let channel = channel(instance);
    send(&channel, get("/")).await.unwrap();
    let piece = Bytes::from_static(&[7; 40 * 1024]);
    let frames = stream::iter(0..3).map(move |_| Ok::<_, Infallible>(Frame::data(piece.clone())));
    let body = Body::new(StreamBody::new(frames).map_err(|never| match never {}));
    let failed = send(&channel, Request::put("/").body(body).unwrap()).await.unwrap_err();
    assert_eq!((failed.kind(), failed.attempts()), (FailureKind::ConnectionLost, 1));
    assert_eq!(count.load(Ordering::Relaxed), 2);
}

/// A body of 16 MiB, its length unknown.
fn upload() -> Request<Body> {
    let piece = Bytes::from_static(&[7; 64 * 1024]);
    let frames = stream::iter(0..256).map(move |_| Ok::<_, Infallible>(Frame::data(piece.clone())));
    let body = Body::new(StreamBody::new(frames).map_err(|never| match never {}));
    Request::post("/").body(body).unwrap()
}

#[tokio::test]
async fn refused_upload_gets_the_refusal() {
    let instance = raw(|number, mut stream| async move {
        head(&mut stream).await?;
        stream.read_exact(&mut vec![0; number % 3 * 100_000]).await?;
        // The longer one is still to be received when the connection is reset.
        let reason = "no room for that ".repeat([1, 2_000][number % 2]);
        let close = ["", "connection: close\r\n"][number / 2 % 2];
        let length = reason.len();
        let answer = format!("HTTP/1.1 413 No\r\n{close}content-length: {length}\r\n\r\n{reason}");
        // With bytes that were not read: a reset.
        stream.write_all(answer.as_bytes()).await
    });
    let channel = channel(instance.await);
    for number in 0..60 {
        let (response, text) = send(&channel, upload()).await.unwrap();
        assert_eq!(response.status(), 413);
        assert_eq!(text, "no room for that ".repeat([1, 2_000][number % 2]), "{number}");
    }
}

/// An instance that does so with all requests, and how many connections it has had.
async fn http2<F>(
    act: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
) -> (HttpChannel, Arc<AtomicUsize>)
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let instance = raw(move |_, stream| {
        count.fetch_add(1, Ordering::Relaxed);
        let act = act.clone();
        async move {
            let server = auto::Builder::new(TokioExecutor::new()).http2_only();
            let act = service_fn(act);
            let _ended = server.serve_connection(TokioIo::new(stream), act).await;
            Ok(())
        }
    });
    (channel(instance.await).http2(), connections)
}

fn large(bytes: &str) -> HeaderValue {
    HeaderValue::from_bytes(&vec![b'x'; bytes.parse().unwrap()]).unwrap()
}

/// `/head/N` and `/trailers/N` respond with a field of so many bytes there, `/wait` once that is
/// true.
fn respond(request: &Request<Incoming>, end: watch::Receiver<bool>) -> Response<Body> {
    let parts: Vec<_> = request.uri().path().split('/').map(str::to_owned).collect();
    let mut response = Response::new(Body::empty());
    match parts[1].as_str() {
        "head" => drop(response.headers_mut().insert("x-large", large(&parts[2]))),
        "trailers" => {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-large", large(&parts[2]));
            trailers.insert("x-last", HeaderValue::from_static("1"));
            let frames = [Frame::data(Bytes::from_static(b"hi")), Frame::trailers(trailers)];
            let frames = StreamBody::new(stream::iter(frames.map(Ok::<_, Status>)));
            *response.body_mut() = Body::new(frames);
        }
        _ => {
            let last = stream::once(async move {
                end.clone().wait_for(|end| *end).await.unwrap();
                Ok::<_, Status>(Frame::data(Bytes::from_static(b"to its end")))
            });
            *response.body_mut() = Body::new(StreamBody::new(Box::pin(last)));
        }
    }
    response
}

#[tokio::test]
async fn large_head_or_trailers_in_http2_fail_only_their_call() {
    let (end, ended) = watch::channel(false);
    let act = move |request| {
        let ended = ended.clone();
        async move { Ok(respond(&request, ended)) }
    };
    let (channel, connections) = http2(act).await;
    let waiting = soon(channel.clone().call(get("/wait"))).await.unwrap();
    assert_eq!(waiting.version(), Version::HTTP_2);
    let again = channel.clone().retry_idempotent(3);
    for _ in 0..2 {
        for bytes in ["17000", "90000", "262000"] {
            let response = soon(again.clone().call(get(&format!("/head/{bytes}")))).await.unwrap();
            assert_eq!(response.headers()["x-large"], large(bytes));
            let response = soon(again.clone().call(get(&format!("/trailers/{bytes}")))).await;
            let read = soon(response.unwrap().into_body().collect()).await.unwrap();
            let trailers = read.trailers().unwrap();
            assert_eq!((&trailers["x-large"], trailers["x-last"].len()), (&large(bytes), 1));
        }
        for bytes in ["263000", "1000000", "4000000", "4500000", "300000"] {
            let failed = send(&again, get(&format!("/head/{bytes}"))).await.unwrap_err();
            assert_eq!(
                (failed.kind(), failed.attempts()),
                (FailureKind::HeadTooLarge, 1),
                "{failed}"
            );
            assert!(failed.to_string().contains("the limit"), "{failed}");
        }
        for bytes in ["263000", "2000000"] {
            let response = soon(again.clone().call(get(&format!("/trailers/{bytes}")))).await;
            let failed = soon(response.unwrap().into_body().collect()).await.unwrap_err();
            assert_eq!(failed.code(), Code::ResourceExhausted);
            assert!(failed.message().contains("the limit is 262144"), "{failed}");
        }
    }
    end.send(true).unwrap();
    let read = soon(waiting.into_body().collect()).await.unwrap();
    assert_eq!(read.to_bytes(), "to its end");
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn refused_upload_over_http2_gets_the_refusal() {
    let act = |_| async {
        let refusal = Response::builder().status(401);
        Ok(refusal.body(Body::new(Full::from("who are you"))).unwrap())
    };
    let (channel, connections) = http2(act).await;
    for _ in 0..60 {
        let (response, text) = send(&channel, upload()).await.unwrap();
        assert_eq!((response.status().as_u16(), text), (401, "who are you".into()));
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}
