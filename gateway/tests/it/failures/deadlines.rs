//! Deadlines of responses, and their propagation.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tonic::body::Body;

use crate::support::{Acted, Caller, Gateway, Seen, act, fed, full, orders, soon, until, whole};

const CONFIG: &str = "
    implicit = true
    limits.timeout = '40s'
    [[routes]]
    path = '/v1'
    service = 'orders'
    timeout = '5s'
    [[routes]]
    path = '/hanging'
    service = 'hanging'
    timeout = '10m'";

fn get(path: &str, timeout_ms: &str) -> Request<Body> {
    let request = Request::get(path).header("x-waypost-timeout-ms", timeout_ms);
    request.body(Body::empty()).unwrap()
}

fn left(seen: &Seen) -> u64 {
    seen.header("x-waypost-timeout-ms").unwrap().parse().unwrap()
}

#[tokio::test]
async fn instance_receives_the_remaining_time() {
    let gateway = Gateway::new(CONFIG).await;
    let instance = orders(&gateway).await;
    gateway.get("/v1").await;
    assert!((1..=5_000).contains(&left(&instance.last())));
    gateway.get("/orders").await;
    assert!((5_001..=40_000).contains(&left(&instance.last())));
}

#[tokio::test]
async fn caller_can_shorten_the_timeout_only() {
    let gateway = Gateway::new(CONFIG).await;
    let instance = orders(&gateway).await;
    for (asked, most) in [("3000", 3_000), ("3600000", 5_000), ("soon", 5_000), ("-1", 5_000)] {
        assert_eq!(gateway.send(get("/v1", asked)).await.status, 200);
        let left = left(&instance.last());
        assert!((1..=most).contains(&left), "{left} of {asked}");
        if most == 5_000 {
            assert!(left > 3_000, "{left} of {asked}");
        }
    }
}

#[tokio::test]
async fn request_ends_at_the_deadline_of_its_caller() {
    let gateway = Gateway::new(CONFIG).await;
    let _instance = gateway.instance("hanging", "a", act::hang).await;
    assert_eq!(gateway.send(get("/hanging", "50")).await.status, 504);
    assert_eq!(gateway.send(get("/hanging", "0")).await.status, 504);
}

/// Responds once it has the whole request.
async fn count(request: Request<Incoming>) -> Acted {
    let read = request.into_body().collect().await.map_err(|_| "the request breaks off")?;
    Ok(Response::new(full(read.to_bytes().len().to_string())))
}

/// A request that is sent piece by piece, one each 100 ms.
async fn upload(caller: Caller, path: &str, pieces: usize) -> (u16, String) {
    let (feed, body) = fed();
    tokio::spawn(async move {
        for _ in 0..pieces {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if feed.send(Frame::data(Bytes::from_static(b"12345"))).await.is_err() {
                return;
            }
        }
    });
    let answer = whole(caller.send(Request::put(path).body(body).unwrap()).await).await;
    (answer.status.as_u16(), answer.text().to_owned())
}

const UPLOADS: &str = "
    [[routes]]
    path = '/old'
    service = 'uploads'
    timeout = '800ms'
    [[routes]]
    path = '/new'
    service = 'uploads'
    http2 = true
    timeout = '800ms'";

#[tokio::test]
async fn slow_upload_does_not_count_against_the_instance() {
    let gateway = Gateway::new(UPLOADS).await;
    let _a = gateway.instance("uploads", "a", count).await;
    let _b = gateway.instance("uploads", "b", count).await;
    let uploads = (0..6)
        .flat_map(|_| [gateway.http1(), gateway.http2()])
        .flat_map(|caller| ["/old", "/new"].map(|path| upload(caller, path, 20)));
    for (status, read) in soon(join_all(uploads)).await {
        assert_eq!((status, &*read), (200, "100"));
    }
    assert_no_ejection(&gateway, "uploads").await;
}

#[tokio::test]
async fn timeout_starts_at_the_end_of_the_upload() {
    let gateway =
        Gateway::new("[[routes]]\npath = '/v1'\nservice = 'late'\ntimeout = '500ms'").await;
    let hang = async |request: Request<Incoming>| {
        drop(request.into_body().collect().await);
        std::future::pending::<Acted>().await
    };
    let _a = gateway.instance("late", "a", hang).await;
    let began = std::time::Instant::now();
    assert_eq!(upload(gateway.http1(), "/v1", 8).await.0, 504);
    assert!(began.elapsed() >= Duration::from_millis(1_300), "{:?}", began.elapsed());
}

/// All gateways of this process have the same figures.
async fn assert_no_ejection(gateway: &Gateway, service: &str) {
    let (figures, service) = (gateway.operator("/metrics").await, format!("\"{service}\""));
    let ejections = figures
        .text()
        .lines()
        .find(|line| line.starts_with("waypost_client_ejections_total") && line.contains(&service));
    assert!(ejections.is_none_or(|line| line.ends_with(" 0")), "{ejections:?}");
}

#[tokio::test]
async fn aborted_upload_does_not_count_against_the_instance() {
    let gateway = Gateway::new(
        "[[routes]]
        path = '/old'
        service = 'left'
        [[routes]]
        path = '/new'
        service = 'left'
        http2 = true",
    )
    .await;
    let instances = [
        gateway.instance("left", "counts", count).await,
        gateway.instance("left", "echoes", act::echo).await,
        gateway.instance("left", "hangs", act::hang).await,
    ];
    let seen = || instances.iter().map(|instance| instance.seen().len()).sum::<usize>();
    for path in ["/old", "/new"] {
        for _ in 0..40 {
            let before = seen();
            let mut caller = TcpStream::connect(gateway.running.address()).await.unwrap();
            let head =
                format!("PUT {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nbegin");
            caller.write_all(head.as_bytes()).await.unwrap();
            until(async || seen() > before).await;
        }
    }
    // The last one's end has been seen by now.
    gateway.told(80).await;
    assert_no_ejection(&gateway, "left").await;
}
