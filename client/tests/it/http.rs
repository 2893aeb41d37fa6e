//! The channel for plain HTTP, over loopback: where requests go, what is sent again, what is told.
//! Waits for conditions, never for time.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    future::pending,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::{body::Frame, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
    time::timeout,
};
use tonic::body::Body;
use tower::Service as _;
use waypost_client::{
    CallTimeout, FailureKind, HttpChannel, Instance, PickContext, Policy, ServedBy, Service,
    proto::Status,
};

/// No wait of these tests comes near it, unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

/// What an instance does with a request.
#[derive(Clone, Copy)]
enum Act {
    /// Answers with what it was sent.
    Echo,
    /// Says that it does not serve now.
    Unavailable,
    /// Reads the head, and closes the connection.
    Die,
    /// Never answers.
    Hang,
    /// Answers once it has all of the request.
    Read,
    /// Takes so long, but for the path `/quick`.
    Slow(Duration),
}

/// A request as an instance saw it.
#[derive(Clone, Debug)]
struct Seen {
    at: &'static str,
    method: Method,
    path: String,
    version: Version,
    headers: HeaderMap,
}

/// What came to instances, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Seen>>>);

impl Log {
    fn all(&self) -> Vec<Seen> {
        self.0.lock().unwrap().clone()
    }

    fn at(&self) -> Vec<&'static str> {
        self.all().iter().map(|seen| seen.at).collect()
    }
}

/// An instance that does so with all requests.
async fn served(id: &'static str, act: Act, log: &Log) -> Instance {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let log = log.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let log = log.clone();
            tokio::spawn(async move {
                let answer = service_fn(move |request| answer(id, act, log.clone(), request));
                let server = auto::Builder::new(TokioExecutor::new());
                let served =
                    server.serve_connection_with_upgrades(TokioIo::new(stream), answer).await;
                drop(served);
            });
        }
    });
    instance(id, port)
}

async fn answer(
    at: &'static str,
    act: Act,
    log: Log,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, &'static str> {
    log.0.lock().unwrap().push(Seen {
        at,
        method: request.method().clone(),
        path: request.uri().path_and_query().unwrap().to_string(),
        version: request.version(),
        headers: request.headers().clone(),
    });
    match act {
        Act::Echo if request.headers().contains_key(header::UPGRADE) => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut stream = TokioIo::new(upgrade.await.unwrap());
                let mut bytes = [0; 4];
                stream.read_exact(&mut bytes).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
            });
            let switching = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
            let switching = switching.header(header::CONNECTION, "upgrade");
            Ok(switching.header(header::UPGRADE, "echo").body(Body::empty()).unwrap())
        }
        Act::Echo => Ok(Response::new(Body::new(request.into_body()))),
        Act::Unavailable => Ok(status(StatusCode::SERVICE_UNAVAILABLE)),
        Act::Die => Err("closes the connection"),
        Act::Hang => pending().await,
        Act::Slow(takes) => {
            if request.uri().path() != "/quick" {
                tokio::time::sleep(takes).await;
            }
            Ok(status(StatusCode::OK))
        }
        Act::Read => {
            let read = request.into_body().collect().await;
            let read = read.map_err(|_| "the request breaks off")?.to_bytes();
            Ok(Response::new(Body::new(http_body_util::Full::new(read))))
        }
    }
}

fn status(status: StatusCode) -> Response<Body> {
    Response::builder().status(status).body(Body::empty()).unwrap()
}

fn instance(id: &str, port: u16) -> Instance {
    Instance {
        service: "orders".into(),
        id: id.into(),
        host: "127.0.0.1".into(),
        port: port.into(),
        status: Status::Up.into(),
        ..Instance::default()
    }
}

/// An instance that takes no connection, for as long as the socket lives: nobody else gets its port.
fn gone() -> (Instance, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    (instance("gone", socket.local_addr().unwrap().port()), socket)
}

/// By turns, so that each instance gets its calls.
fn channel(instances: impl IntoIterator<Item = Instance>) -> HttpChannel {
    Service::fixed(instances).with_policy(Policy::RoundRobin).http_channel()
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

fn post(body: &'static [u8]) -> Request<Body> {
    let frames = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(body)))]);
    let body = Body::new(StreamBody::new(frames).map_err(|never| match never {}));
    Request::post("/").body(body).unwrap()
}

async fn text(answer: Response<Body>) -> Bytes {
    answer.into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test]
async fn a_request_goes_to_an_instance_as_it_is() {
    let log = Log::default();
    let mut channel = channel([served("a", Act::Echo, &log).await]);
    let mut request = post(b"four");
    *request.uri_mut() = "http://gateway/v1/orders?id=7".parse().unwrap();
    request.headers_mut().insert(header::HOST, "orders.internal".parse().unwrap());
    request.extensions_mut().insert(CallTimeout(Duration::from_secs(60)));
    let answer = channel.call(request).await.unwrap();
    let by = answer.extensions().get::<ServedBy>().unwrap();
    assert_eq!((by.instance().id.as_str(), by.attempts()), ("a", 1));
    assert_eq!(text(answer).await, "four");
    let seen = &log.all()[0];
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v1/orders?id=7"));
    assert_eq!(seen.headers[header::HOST], "orders.internal");
    assert_eq!(seen.version, Version::HTTP_11);
    let left: u64 = seen.headers["x-waypost-timeout-ms"].to_str().unwrap().parse().unwrap();
    assert!((1..=60_000).contains(&left), "{left}");
    assert!(!seen.headers.contains_key("x-waypost-previous-attempts"));
}

#[tokio::test]
async fn instances_may_be_spoken_to_in_http2() {
    let log = Log::default();
    let mut channel = channel([served("a", Act::Echo, &log).await]).http2();
    let answer = channel.call(post(b"four")).await.unwrap();
    assert_eq!(text(answer).await, "four");
    assert_eq!(log.all()[0].version, Version::HTTP_2);
}

#[tokio::test]
async fn who_takes_no_connection_costs_no_request() {
    let log = Log::default();
    let (gone, _socket) = gone();
    for http2 in [false, true] {
        let channel = channel([gone.clone(), served("a", Act::Echo, &log).await]);
        let mut channel = if http2 { channel.http2() } else { channel };
        for _ in 0..200 {
            let answer = channel.call(post(b"once")).await.unwrap();
            assert_eq!(text(answer).await, "once");
        }
    }
    assert_eq!(log.at(), ["a"; 400]);
}

#[tokio::test]
async fn what_may_have_been_served_is_sent_again_only_where_that_is_allowed() {
    let log = Log::default();
    let instances = [served("a", Act::Die, &log).await, served("b", Act::Die, &log).await];
    let mut once = channel(instances);
    let failed = once.call(post(b"pay")).await.unwrap_err();
    assert_eq!((failed.kind(), failed.attempts()), (FailureKind::ConnectionLost, 1));
    assert_eq!(failed.instance().unwrap().id, log.at()[0]);
    let mut again = once.clone().retry_idempotent(3);
    let failed = again.call(get("/")).await.unwrap_err();
    assert_eq!((failed.kind(), failed.attempts()), (FailureKind::ConnectionLost, 3));
    let seen = log.all();
    assert_eq!(seen.len(), 4);
    let attempts = seen.iter().map(|seen| seen.headers.get("x-waypost-previous-attempts"));
    let attempts: Vec<_> =
        attempts.map(|value| value.map(|value| value.to_str().unwrap())).collect();
    assert_eq!(attempts, [None, None, Some("1"), Some("2")]);
    assert_ne!(seen[1].at, seen[2].at, "another instance is asked");
}

#[tokio::test]
async fn what_is_not_served_now_goes_to_another_instance() {
    let log = Log::default();
    let instances = [served("a", Act::Unavailable, &log).await, served("b", Act::Echo, &log).await];
    let once = channel(instances);
    let mut again = once.clone().retry_idempotent(2);
    for _ in 0..10 {
        let answer = again.call(post(b"body")).await.unwrap();
        assert_eq!(text(answer).await, "body");
    }
    // Where it may not, the answer is passed on.
    let mut alone = channel([served("c", Act::Unavailable, &log).await]);
    let answer = alone.call(post(b"body")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn nobody_waits_longer_than_the_timeout() {
    let log = Log::default();
    let mut channel = channel([served("a", Act::Hang, &log).await]);
    let mut request = get("/");
    request.extensions_mut().insert(CallTimeout(Duration::from_millis(50)));
    let failed = timeout(PATIENCE, channel.call(request)).await.unwrap().unwrap_err();
    assert_eq!((failed.kind(), failed.attempts()), (FailureKind::TimedOut, 1));
    assert_eq!(failed.to_string(), "the call's timeout has passed");
}

#[tokio::test]
async fn who_has_its_fill_is_spared() {
    let log = Log::default();
    let mut channel = channel([served("a", Act::Echo, &log).await]).concurrency_limit(1);
    let held = channel.call(post(b"held")).await.unwrap();
    let failed = channel.call(get("/")).await.unwrap_err();
    assert_eq!((failed.kind(), failed.attempts()), (FailureKind::LimitReached, 0));
    drop(held);
    assert!(channel.call(get("/")).await.is_ok());
}

#[tokio::test]
async fn an_upgrade_passes_through() {
    let log = Log::default();
    let mut channel = channel([served("a", Act::Echo, &log).await]);
    let mut request = get("/chat");
    request.headers_mut().insert(header::CONNECTION, "upgrade".parse().unwrap());
    request.headers_mut().insert(header::UPGRADE, "echo".parse().unwrap());
    let mut answer = channel.call(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap());
    stream.write_all(b"ping").await.unwrap();
    let mut bytes = [0; 4];
    timeout(PATIENCE, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    assert_eq!(&bytes, b"ping");
}

#[tokio::test]
async fn a_call_counts_until_its_answer_is_read() {
    let log = Log::default();
    let service = Service::fixed([served("a", Act::Echo, &log).await]);
    let mut channel = service.http_channel().concurrency_limit(1);
    let answer = channel.call(post(b"four")).await.unwrap();
    assert_eq!(channel.call(get("/")).await.unwrap_err().kind(), FailureKind::LimitReached);
    assert_eq!(text(answer).await, "four");
    assert!(channel.call(get("/")).await.is_ok());
}

/// An instance that answers each request with the number of its connection, and closes a connection after
/// so many answers, without a word.
async fn numbered(answers: usize) -> Instance {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        for number in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                for _ in 0..answers {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await?);
                    }
                    let answer =
                        format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{}", number % 10);
                    stream.write_all(answer.as_bytes()).await?;
                }
                Ok::<_, std::io::Error>(())
            });
        }
    });
    instance("numbered", port)
}

#[tokio::test]
async fn a_connection_is_used_again_once_its_answer_was_read() {
    let mut channel = channel([numbered(usize::MAX).await]);
    for _ in 0..10 {
        assert_eq!(text(channel.call(get("/")).await.unwrap()).await, "0");
    }
    let held = channel.call(get("/")).await.unwrap();
    assert_eq!(text(channel.call(get("/")).await.unwrap()).await, "1", "the first is in use");
    assert_eq!(text(held).await, "0");
    // Nobody reads this answer: what is still on its connection must not be the next one's.
    drop(channel.call(get("/")).await.unwrap());
    for _ in 0..10 {
        let connection = text(channel.call(get("/")).await.unwrap()).await;
        assert!(connection == "0" || connection == "1" || connection == "2", "{connection:?}");
    }
}

#[tokio::test]
async fn a_connection_that_its_instance_closed_loses_no_request() {
    let mut channel = channel([numbered(1).await]);
    for number in 0..20 {
        let answer = channel.call(get("/")).await.unwrap();
        assert_eq!(text(answer).await, (number % 10).to_string());
        // It takes a moment until the end is heard of here.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_answer_may_come_before_the_request_has_ended() {
    let log = Log::default();
    let mut channel = channel([served("a", Act::Echo, &log).await]);
    let (sender, frames) = tokio::sync::mpsc::channel(1);
    let frames = stream::unfold(frames, |mut frames: tokio::sync::mpsc::Receiver<Bytes>| async {
        Some((Ok::<_, Infallible>(Frame::data(frames.recv().await?)), frames))
    });
    let body = Body::new(StreamBody::new(Box::pin(frames)).map_err(|never| match never {}));
    let answer = channel.call(Request::post("/").body(body).unwrap()).await.unwrap();
    let mut body = answer.into_body();
    for word in ["one", "two", "three"] {
        sender.send(word.into()).await.unwrap();
        let frame = timeout(PATIENCE, body.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), word);
    }
    drop(sender);
    assert!(timeout(PATIENCE, body.frame()).await.unwrap().is_none());
    assert_eq!(text(channel.call(post(b"four")).await.unwrap()).await, "four");
}

#[test]
fn a_connection_serves_the_runtime_that_opened_it_and_goes_with_it() {
    let instances = runtime();
    let channel = channel([instances.block_on(numbered(usize::MAX))]);
    let ask = || async { text(channel.clone().call(get("/")).await.unwrap()).await };
    let (first, second) = (runtime(), runtime());
    assert_eq!(first.block_on(ask()), "0");
    assert_eq!(second.block_on(ask()), "1", "the first one's bytes are moved elsewhere");
    assert_eq!(first.block_on(ask()), "0");
    drop(first);
    assert_eq!(second.block_on(ask()), "1");
    assert_eq!(runtime().block_on(ask()), "2");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// A body of these pieces, each after a pause.
fn slow(pieces: usize, pause: Duration) -> Body {
    let pieces = stream::iter(0..pieces).then(move |_| async move {
        tokio::time::sleep(pause).await;
        Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"piece")))
    });
    Body::new(StreamBody::new(pieces).map_err(|never| match never {}))
}

fn put(body: Body, timeout: Duration) -> Request<Body> {
    Request::put("/").extension(CallTimeout(timeout)).body(body).unwrap()
}

/// How many instances are not ejected.
fn healthy(service: &Service) -> usize {
    let picked = (0..200).filter_map(|_| service.pick(&PickContext::new().healthy_only()).ok());
    picked.map(|pick| pick.instance().id.clone()).collect::<BTreeSet<_>>().len()
}

#[tokio::test]
async fn an_upload_may_take_longer_than_the_timeout() {
    let log = Log::default();
    let service =
        Service::fixed([served("a", Act::Read, &log).await, served("b", Act::Echo, &log).await]);
    let limit = Duration::from_secs(1);
    for channel in [service.http_channel(), service.http_channel().http2()] {
        let uploads = (0..12).map(|_| {
            let mut channel = channel.clone();
            async move {
                let body = slow(16, Duration::from_millis(125));
                text(channel.call(put(body, limit)).await.unwrap()).await
            }
        });
        let read = timeout(PATIENCE, futures_util::future::join_all(uploads)).await.unwrap();
        assert!(read.iter().all(|read| read.len() == 16 * 5), "{read:?}");
    }
    assert_eq!(healthy(&service), 2);
}

#[tokio::test]
async fn a_caller_that_pauses_for_longer_than_the_timeout_is_waited_for() {
    let log = Log::default();
    let mut channel = channel([served("a", Act::Read, &log).await]);
    let body = slow(2, Duration::from_millis(600));
    let answer = channel.call(put(body, Duration::from_millis(300))).await.unwrap();
    assert_eq!(text(answer).await, "piecepiece");
}

#[tokio::test]
async fn the_timeout_runs_from_the_end_of_the_upload() {
    let log = Log::default();
    let mut channel = channel([served("a", Act::Hang, &log).await]);
    let began = Instant::now();
    let body = slow(6, Duration::from_millis(100));
    let limit = Duration::from_millis(400);
    let failed = timeout(PATIENCE, channel.call(put(body, limit))).await.unwrap().unwrap_err();
    assert_eq!(failed.kind(), FailureKind::TimedOut);
    assert!(began.elapsed() >= 6 * Duration::from_millis(100) + limit, "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_instance_that_stops_reading_runs_out_of_the_timeout_and_is_ejected() {
    let log = Log::default();
    for http2 in [false, true] {
        let service = Service::fixed([served("a", Act::Hang, &log).await]);
        let channel = service.http_channel();
        let mut channel = if http2 { channel.http2() } else { channel };
        assert_eq!(healthy(&service), 1);
        for _ in 0..5 {
            let endless = stream::repeat_with(|| {
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[7; 4096])))
            });
            let body = Body::new(StreamBody::new(endless).map_err(|never| match never {}));
            let request = put(body, Duration::from_millis(200));
            let failed = timeout(PATIENCE, channel.call(request)).await.unwrap().unwrap_err();
            assert_eq!(failed.kind(), FailureKind::TimedOut, "HTTP/2: {http2}");
        }
        assert_eq!(healthy(&service), 0, "HTTP/2: {http2}");
    }
}

#[tokio::test]
async fn an_upload_that_its_caller_breaks_off_is_not_the_instances_failure() {
    let log = Log::default();
    for (act, http2) in
        [Act::Read, Act::Echo].into_iter().flat_map(|act| [(act, false), (act, true)])
    {
        let service = Service::fixed([served("a", act, &log).await]);
        let channel = service.http_channel().retry_idempotent(3);
        let mut channel = if http2 { channel.http2() } else { channel };
        for _ in 0..30 {
            let begin = stream::iter([Ok(Frame::data(Bytes::from_static(b"begin")))]);
            let broken = begin.chain(stream::once(async {
                tokio::time::sleep(Duration::from_millis(5)).await;
                Err(tonic::Status::cancelled("the caller is gone"))
            }));
            let body = Body::new(StreamBody::new(Box::pin(broken)));
            let answered = timeout(PATIENCE, channel.call(put(body, PATIENCE))).await.unwrap();
            if let Ok(answer) = answered {
                answer.into_body().collect().await.unwrap_err();
            }
        }
        assert_eq!(healthy(&service), 1, "HTTP/2: {http2}");
    }
}

fn timed(path: &str, timeout: Duration) -> Request<Body> {
    Request::get(path).extension(CallTimeout(timeout)).body(Body::empty()).unwrap()
}

/// So many calls at once, all of which are answered.
async fn all_answered(channel: &HttpChannel, calls: usize, limit: Duration) {
    let calls = (0..calls).map(|_| {
        let mut channel = channel.clone();
        async move { channel.call(timed("/", limit)).await.map(|answer| answer.status()) }
    });
    for answered in timeout(PATIENCE, futures_util::future::join_all(calls)).await.unwrap() {
        assert_eq!(answered.unwrap(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_silent_instance_costs_no_call_and_is_ejected() {
    let log = Log::default();
    for (http2, policy) in [(false, Policy::RoundRobin), (true, Policy::PeakEwma)] {
        let service = Service::fixed([
            served("silent", Act::Hang, &log).await,
            served("b", Act::Echo, &log).await,
            served("c", Act::Echo, &log).await,
        ]);
        let channel = service.with_policy(policy).http_channel().retry_idempotent(3);
        let channel = if http2 { channel.http2() } else { channel };
        for _ in 0..8 {
            all_answered(&channel, 12, Duration::from_millis(1_600)).await;
        }
        assert_eq!(healthy(&service), 2, "HTTP/2: {http2}");
    }
}

#[tokio::test]
async fn two_silent_instances_of_three_cost_no_call() {
    let log = Log::default();
    let service = Service::fixed([
        served("silent", Act::Hang, &log).await,
        served("dumb", Act::Hang, &log).await,
        served("c", Act::Echo, &log).await,
    ]);
    let channel = service.with_policy(Policy::RoundRobin).http_channel().retry_idempotent(3);
    for _ in 0..3 {
        all_answered(&channel, 6, Duration::from_secs(2)).await;
    }
}

#[tokio::test]
async fn instances_that_are_all_slow_are_waited_for_and_stay() {
    let log = Log::default();
    let slow = Act::Slow(Duration::from_millis(720));
    let mut instances = Vec::new();
    for id in ["a", "b", "c"] {
        instances.push(served(id, slow, &log).await);
    }
    let service = Service::fixed(instances);
    let channel = service.http_channel().retry_idempotent(3);
    let limit = Duration::from_millis(1_200);
    all_answered(&channel, 1, limit).await;
    // That is how long answers take, as is known from now on.
    let before = log.all().len();
    for _ in 0..4 {
        all_answered(&channel, 6, limit).await;
    }
    let sent = log.all().len() - before;
    assert!(sent <= 30, "24 calls were sent {sent} times");
    assert_eq!(healthy(&service), 3);
}

#[tokio::test]
async fn an_instance_that_answers_other_calls_is_not_silent() {
    let log = Log::default();
    let slow = Act::Slow(Duration::from_millis(900));
    let instances = [served("a", slow, &log).await, served("b", slow, &log).await];
    let service = Service::fixed(instances).with_policy(Policy::RoundRobin);
    let channel = service.http_channel().retry_idempotent(2);
    let limit = Duration::from_millis(1_500);
    let mut slow_one = channel.clone();
    let mut slow_one = std::pin::pin!(slow_one.call(timed("/", limit)));
    let mut quick = channel.clone();
    let answer = loop {
        tokio::select! {
            answer = &mut slow_one => break answer.unwrap(),
            answer = quick.call(timed("/quick", limit)) => drop(answer.unwrap()),
        }
    };
    assert_eq!(answer.extensions().get::<ServedBy>().unwrap().attempts(), 1);
    assert_eq!(log.all().iter().filter(|seen| seen.path == "/").count(), 1);
}

#[tokio::test]
async fn a_sequential_call_is_at_one_instance_at_a_time() {
    let log = Log::default();
    let service =
        Service::fixed([served("a", Act::Hang, &log).await, served("b", Act::Hang, &log).await]);
    let mut channel = service.http_channel().retry_idempotent(2).sequential();
    let limit = Duration::from_millis(400);
    let failed = channel.call(timed("/", limit)).await.unwrap_err();
    assert_eq!((failed.kind(), failed.attempts()), (FailureKind::TimedOut, 1));
    assert_eq!(log.all().len(), 1);
}
