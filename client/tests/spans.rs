//! Spans of calls. Alone in its process: a thread without a subscriber that reaches a span first
//! may disable it for all.
#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use tracing_subscriber::fmt::format::FmtSpan;
use waypost_client::{Instance, Service, proto};
use waypost_testing::greeter::{
    GreetRequest, GreetResponse,
    greeter_client::GreeterClient,
    greeter_server::{Greeter, GreeterServer},
};

/// Refuses every call.
struct Unavailable;

#[tonic::async_trait]
impl Greeter for Unavailable {
    async fn greet(&self, _: Request<GreetRequest>) -> Result<Response<GreetResponse>, Status> {
        Err(Status::unavailable("not now"))
    }
}

/// The log lines of this thread.
#[derive(Clone, Default)]
struct Logs(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn each_attempt_is_a_span() {
    let logs = Logs::default();
    let writer = logs.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::DEBUG)
        .with_span_events(FmtSpan::NEW)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tonic::transport::Server::builder().add_service(GreeterServer::new(Unavailable));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let service = Service::fixed([Instance {
        service: "greeter".into(),
        id: "a".into(),
        host: "127.0.0.1".into(),
        port: port.into(),
        status: proto::Status::Up.into(),
        ..Instance::default()
    }]);
    let channel = service.channel().retry_idempotent(2);
    let request = GreetRequest { name: "you".into() };
    let status = GreeterClient::new(channel).greet(request).await.unwrap_err();
    assert_eq!(status.message(), "not now");
    let logs = String::from_utf8(logs.0.lock().unwrap().clone()).unwrap();
    for attempt in [1, 2] {
        let span = format!("attempt{{service=\"greeter\" instance=\"a\" attempt={attempt}}}: ");
        let begun = |line: &&str| line.contains(&span) && line.ends_with(" new");
        assert_eq!(logs.lines().filter(begun).count(), 1, "{logs}");
    }
}
