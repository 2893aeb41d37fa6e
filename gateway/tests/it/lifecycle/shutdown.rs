//! The end of a gateway: it reports it, accepts no more, and waits for requests in flight.

use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
};
use tonic::body::Body;
use waypost_client::fake::Registry;
use waypost_gateway::Advertised;

use crate::support::{Gateway, Setup, act, soon, until, whole};

#[tokio::test]
async fn requests_in_flight_finish_and_no_new_ones_are_accepted() {
    let gateway = Gateway::new("").await;
    let (release, released) = watch::channel(false);
    let hold = move |request: Request<Incoming>| {
        let mut released = released.clone();
        async move {
            released.wait_for(|released| *released).await.unwrap();
            act::echo(request).await
        }
    };
    let instance = gateway.instance("orders", "a", hold).await;
    let calls = [gateway.http1(), gateway.http2()].map(|caller| {
        tokio::spawn(async move {
            let request = Request::get("/orders").body(Body::empty()).unwrap();
            whole(caller.send(request).await).await.status.as_u16()
        })
    });
    instance.until_asked(2).await;
    let address = gateway.running.address();
    let closing = tokio::spawn(gateway.running.close());
    until(async || TcpStream::connect(address).await.is_err()).await;
    assert!(!closing.is_finished());
    release.send(true).unwrap();
    for call in calls {
        assert_eq!(soon(call).await.unwrap(), 200);
    }
    soon(closing).await.unwrap();
}

#[tokio::test]
async fn requests_over_the_drain_time_are_ended() {
    let drain = Duration::from_millis(50);
    let gateway = Gateway::set_up(Setup { drain, ..Setup::default() }).await;
    let instance = gateway.instance("orders", "a", act::hang).await;
    let caller = gateway.http1();
    let request = Request::get("/orders").body(Body::empty()).unwrap();
    let calling = tokio::spawn(caller.try_send(request));
    instance.until_asked(1).await;
    soon(gateway.running.close()).await;
    assert!(soon(calling).await.unwrap().is_err());
}

#[tokio::test]
async fn gateway_is_registered_while_it_runs() {
    let registry = Registry::new();
    let advertised = Advertised { service: "gateway".into(), host: "127.0.0.1".into() };
    let gateway = Gateway::set_up(Setup {
        registry: registry.clone(),
        advertised: Some(advertised),
        drain: Duration::from_millis(500),
        ..Setup::default()
    })
    .await;
    soon(registry.until(|registry| !registry.instances("gateway").is_empty())).await;
    let registered = registry.instances("gateway").remove(0);
    assert_eq!(registered.host, "127.0.0.1");
    assert_eq!(registered.port, u32::from(gateway.running.address().port()));
    soon(gateway.running.close()).await;
    assert!(registry.instances("gateway").is_empty());
}

#[tokio::test]
async fn readiness_ends_with_the_drain() {
    let gateway = Gateway::new("").await;
    let instance = gateway.instance("orders", "a", act::hang).await;
    until(async || gateway.operator("/health/ready").await.status == 200).await;
    let request = Request::get("/orders").body(Body::empty()).unwrap();
    let calling = tokio::spawn(gateway.http1().try_send(request));
    instance.until_asked(1).await;
    let admin = crate::support::Caller::Http1(gateway.running.admin_address());
    let closing = tokio::spawn(gateway.running.close());
    until(async || {
        let request = Request::get("/health/ready").body(Body::empty()).unwrap();
        whole(admin.send(request).await).await.status == 503
    })
    .await;
    calling.abort();
    soon(closing).await.unwrap();
}

/// A connection of HTTP/1.1 for requests with empty responses: returns their heads.
async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET /orders HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(stream.read_u8()).await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// A caller that reuses a connection can't detect that it closes meanwhile.
#[tokio::test]
async fn kept_connection_gets_one_more_request() {
    let gateway = Gateway::new("").await;
    let _instance = gateway.instance("orders", "a", act::echo).await;
    let address = gateway.running.address();
    let mut kept = Vec::new();
    // Idle connections, one just after a response, and one before its first request.
    for requests in [1, 3, 1, 0] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        for _ in 0..requests {
            let head = ask(&mut stream).await;
            assert!(head.starts_with("HTTP/1.1 200") && !head.contains("close"), "{head}");
        }
        kept.push(stream);
        if kept.len() == 2 {
            // Longer than a connection has no request before it rests.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    // It is served before the gateway leaves.
    ask(&mut TcpStream::connect(address).await.unwrap()).await;
    let closing = tokio::spawn(gateway.running.close());
    until(async || TcpStream::connect(address).await.is_err()).await;
    for mut stream in kept {
        assert!(!closing.is_finished());
        let head = ask(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("connection: close"), "{head}");
        assert_eq!(soon(stream.read(&mut [0])).await.unwrap(), 0, "and no more than one");
    }
    soon(closing).await.unwrap();
}

#[tokio::test]
async fn idle_connections_do_not_delay_shutdown() {
    let drain = Duration::from_millis(400);
    let gateway = Gateway::set_up(Setup { drain, ..Setup::default() }).await;
    let _instance = gateway.instance("orders", "a", act::echo).await;
    let mut asked = TcpStream::connect(gateway.running.address()).await.unwrap();
    let mut silent = TcpStream::connect(gateway.running.address()).await.unwrap();
    ask(&mut asked).await;
    soon(gateway.running.close()).await;
    for stream in [&mut asked, &mut silent] {
        assert_eq!(soon(stream.read(&mut [0])).await.unwrap(), 0);
    }
}
