//! `waypost register --ready`: the instance is STARTING until a check succeeds, and UP from then
//! on.

use std::{fs, sync::Arc};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::watch,
    task::JoinSet,
};
use waypost_testing::wait::soon;

use crate::cli::{
    REGISTER,
    support::{Running, Server},
    watch_orders,
};

/// An HTTP/1.1 server with a variable status line, which records requests.
struct App {
    address: String,
    status: watch::Sender<&'static str>,
    /// The head of the last request.
    request: watch::Receiver<String>,
    _tasks: JoinSet<()>,
}

impl App {
    /// The status line; no response if it is empty.
    async fn start(status: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let status = watch::Sender::new(status);
        let (requests, request) = watch::channel(String::new());
        let (statuses, requests) = (status.clone(), Arc::new(requests));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let (statuses, requests) = (statuses.clone(), Arc::clone(&requests));
                connections.spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await.unwrap());
                    }
                    let status = *statuses.borrow();
                    requests.send_replace(String::from_utf8(head).unwrap());
                    if status.is_empty() {
                        return std::future::pending().await;
                    }
                    // Of a connection that is kept, and of a body that is not read.
                    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\nbody");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    let _ = stream.read_u8().await;
                });
            }
        });
        Self { address, status, request, _tasks: tasks }
    }
}

fn register(server: &Server, ready: &str) -> Running {
    server.start_command(&[&REGISTER[..], &["--ready", ready]].concat())
}

async fn status(watch: &mut Running) -> Value {
    watch.event().await["instance"]["status"].take()
}

#[tokio::test]
async fn instance_is_starting_until_its_url_responds_with_2xx() {
    let server = Server::start().await;
    let (mut watch, _marker) = watch_orders(&server).await;
    let mut app = App::start("503 Service Unavailable").await;
    let _register = register(&server, &format!("http://{}/ready?deep=1", app.address));
    assert_eq!(status(&mut watch).await, "STARTING");
    for refusal in ["301 Moved", "404 Not Found", "199 Odd", ""] {
        app.status.send_replace(refusal);
        app.request.mark_unchanged();
        // The second: the first may have been on its way before.
        for _ in 0..2 {
            soon("a request", app.request.changed()).await.unwrap();
        }
    }
    let head = app.request.borrow_and_update().clone();
    let expected = format!("GET /ready?deep=1 HTTP/1.1\r\nhost: {}\r\n", app.address);
    assert!(head.to_lowercase().starts_with(&expected.to_lowercase()), "{head}");
    assert_eq!(server.json(&["instances", "orders"]).await[0]["status"], "STARTING");
    app.status.send_replace("204 No Content");
    assert_eq!(status(&mut watch).await, "UP");
    // Overload is no reason to leave: what fails later is for callers to find out.
    app.status.send_replace("503 Service Unavailable");
    app.request.mark_unchanged();
    let repeated = tokio::time::timeout(std::time::Duration::from_secs(1), app.request.changed());
    assert!(repeated.await.is_err(), "the check is not repeated");
}

#[tokio::test]
async fn instance_is_starting_until_its_port_accepts_connections() {
    let server = Server::start().await;
    let (mut watch, _marker) = watch_orders(&server).await;
    let socket = tokio::net::TcpSocket::new_v6().unwrap();
    socket.bind("[::1]:0".parse().unwrap()).unwrap();
    let register = register(&server, &format!("tcp://{}", socket.local_addr().unwrap()));
    assert_eq!(status(&mut watch).await, "STARTING");
    let _listener = socket.listen(8).unwrap();
    assert_eq!(status(&mut watch).await, "UP");
    register.signal(rustix::process::Signal::TERM);
    assert_eq!(register.end().await.0.code(), Some(0));
}

#[tokio::test]
async fn instance_is_up_once_its_ready_file_exists() {
    let server = Server::start().await;
    let (mut watch, _marker) = watch_orders(&server).await;
    let file = server.directory().join("ready");
    let check = format!("file:{}", file.display());
    let command = ["--ready", &check, "--drain-time", "100ms", "--", "sleep", "30"];
    for ready in [true, false] {
        let mut register = server.start_command(&[&REGISTER[..], &command].concat());
        assert!(register.line().await.starts_with("registered"));
        assert_eq!(status(&mut watch).await, "STARTING");
        if ready {
            fs::write(&file, "").unwrap();
            assert_eq!(status(&mut watch).await, "UP");
        }
        register.signal(rustix::process::Signal::TERM);
        assert_eq!(status(&mut watch).await, "DRAINING");
        assert_eq!(watch.event().await["kind"], "REMOVED");
        assert_eq!(register.end().await.0.code(), Some(143));
        if ready {
            fs::remove_file(&file).unwrap();
        }
    }
}
