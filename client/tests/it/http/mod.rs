//! The channel for plain HTTP, over loopback: routing, retries, reports. Waits for conditions,
//! never for time.

mod connections;
mod requests;
mod slow;

use std::{
    convert::Infallible,
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, StreamBody};
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
    net::TcpListener,
};
use tonic::body::Body;
use waypost_client::{CallTimeout, HttpChannel, Instance, Policy, Service};

use crate::support::instance;

/// Longer than any wait of these tests where all is well.
const PATIENCE: Duration = Duration::from_secs(20);

/// The act of an instance on a request.
#[derive(Clone, Copy)]
enum Behavior {
    /// Responds with what it was sent.
    Echo,
    /// Reports that it does not serve now.
    Unavailable,
    /// Reads the head, and closes the connection.
    Die,
    /// Never responds.
    Hang,
    /// Responds once it has the whole request.
    Read,
    /// Responds after a time, except for the path `/quick`.
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

/// The requests that reached instances, in order.
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
async fn served(id: &'static str, act: Behavior, log: &Log) -> Instance {
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
    act: Behavior,
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
        Behavior::Echo if request.headers().contains_key(header::UPGRADE) => {
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
        Behavior::Echo => Ok(Response::new(Body::new(request.into_body()))),
        Behavior::Unavailable => Ok(status(StatusCode::SERVICE_UNAVAILABLE)),
        Behavior::Die => Err("closes the connection"),
        Behavior::Hang => pending().await,
        Behavior::Slow(takes) => {
            if request.uri().path() != "/quick" {
                tokio::time::sleep(takes).await;
            }
            Ok(status(StatusCode::OK))
        }
        Behavior::Read => {
            let read = request.into_body().collect().await;
            let read = read.map_err(|_| "the request breaks off")?.to_bytes();
            Ok(Response::new(Body::new(http_body_util::Full::new(read))))
        }
    }
}

fn status(status: StatusCode) -> Response<Body> {
    Response::builder().status(status).body(Body::empty()).unwrap()
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

fn timed(path: &str, timeout: Duration) -> Request<Body> {
    Request::get(path).extension(CallTimeout(timeout)).body(Body::empty()).unwrap()
}
