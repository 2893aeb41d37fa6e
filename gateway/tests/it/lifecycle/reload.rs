//! The file is changed while requests are under way.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use futures_util::future::join_all;
use http::Request;
use hyper::body::Incoming;
use tokio::sync::watch;
use tonic::body::Body;
use tracing::subscriber::DefaultGuard;

use crate::support::{Gateway, act, orders, until, whole};

const OLD: &str = "implicit = true\n[[routes]]\npath = '/old'\nservice = 'orders'";
const NEW: &str = "implicit = false\n[[routes]]\npath = '/new'\nservice = 'orders'";

#[tokio::test]
async fn requests_in_flight_keep_their_routes() {
    let gateway = Gateway::new(OLD).await;
    let (release, released) = watch::channel(false);
    let hold = move |request: Request<Incoming>| {
        let mut released = released.clone();
        async move {
            released.wait_for(|released| *released).await.unwrap();
            act::echo(request).await
        }
    };
    let instance = gateway.instance("orders", "a", hold).await;
    let quick = gateway.instance("quick", "a", act::echo).await;
    let callers = [gateway.http1(), gateway.http2()].into_iter().cycle();
    let calls = callers.take(50).map(|caller| {
        tokio::spawn(async move {
            let request = Request::get("/old").body(Body::empty()).unwrap();
            whole(caller.send(request).await).await.status.as_u16()
        })
    });
    let calls: Vec<_> = calls.collect();
    instance.until_asked(50).await;
    assert_eq!(gateway.get("/quick").await.status, 200);
    gateway.configure(NEW);
    until(async || gateway.get("/quick").await.status == 404).await;
    assert_eq!(gateway.get("/old").await.status, 404);
    release.send(true).unwrap();
    let statuses: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(statuses, [200; 50]);
    assert_eq!(gateway.get("/new").await.status, 200);
    assert_eq!(instance.seen().len(), 51, "nothing was sent again");
    assert!(!quick.seen().is_empty());
}

#[tokio::test]
async fn no_request_fails_while_routes_change() {
    let both = |config| format!("{config}\n[[routes]]\npath = '/both'\nservice = 'orders'");
    let gateway = Gateway::new(&both(OLD)).await;
    let _instance = orders(&gateway).await;
    for (config, path) in [(NEW, "/new"), (OLD, "/old")] {
        gateway.configure(&both(config));
        until(async || {
            assert_eq!(gateway.get("/both").await.status, 200);
            gateway.get(path).await.status == 200
        })
        .await;
    }
}

#[tokio::test]
async fn invalid_file_keeps_the_previous_routes() {
    let (log, _guard) = log();
    let gateway = Gateway::new(OLD).await;
    let _instance = orders(&gateway).await;
    gateway.configure("[[routes]]\npath = 'old'\nservice = 'orders'");
    until(async || log.contains("invalid configuration")).await;
    assert_eq!(gateway.get("/old").await.status, 200);
    gateway.configure(NEW);
    until(async || gateway.get("/new").await.status == 200).await;
}

/// The log lines of this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn contains(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.0.lock().unwrap()).contains(text)
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log() -> (Log, DefaultGuard) {
    let log = Log::default();
    let written = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_writer(move || written.clone()).with_ansi(false).finish();
    (log, tracing::subscriber::set_default(subscriber))
}
