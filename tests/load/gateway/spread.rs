//! The spread of requests over replicas that stay.

use std::{collections::BTreeMap, convert::Infallible, fs, path::PathBuf, time::Duration};

use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, time::sleep};
use waypost_client::{Client, Registered, Registration};

use crate::{
    gateway::{callers::Callers, replica::SERVICE, test_gateway::TestGateway},
    support::{alone, client, serve},
};

const REPLICAS: usize = 15;
const CALLERS: usize = 30;
const WORK: Duration = Duration::from_millis(5);
/// The least number of requests to all of them.
const REQUESTS: usize = 15_000;

/// Routes by load. A stall of this process makes replicas with requests in flight look slow: a
/// policy by latency would rightly prefer the others for a while.
const BY_LOAD: &str = r#"
implicit = true
[[routes]]
name = "orders"
path = "/orders"
service = "orders"
strip = true
policy = "least-request"
"#;

/// Starts a replica in this process that takes `work` for each request.
async fn replica(client: &Client, id: String, work: Duration) -> Registered {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let name = Bytes::from(id.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let name = name.clone();
            let answer = service_fn(move |_: Request<_>| {
                let name = name.clone();
                async move {
                    sleep(work).await;
                    Ok::<_, Infallible>(Response::new(Full::new(name)))
                }
            });
            let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
            // Connections end as they like.
            tokio::spawn(async move { drop(serving.await) });
        }
    });
    let registration = Registration::new(SERVICE, "127.0.0.1", port).id(id);
    client.register(registration).await.expect("registered")
}

/// Counts the requests that a gateway with these routes sends to each replica; the first replica
/// takes `first` for each.
async fn spread(first: Duration, routes: Option<PathBuf>) -> BTreeMap<String, usize> {
    let registry = serve().log("error").start().await;
    let client = client(&registry.port_file()).build().expect("a client");
    let mut registered = Vec::new();
    for index in 0..REPLICAS {
        let work = if index == 0 { first } else { WORK };
        registered.push(replica(&client, format!("orders-{index:02}"), work).await);
    }
    let gateway = TestGateway::start(&registry.port_file(), routes).await;
    let mut counts = BTreeMap::new();
    while counts.values().sum::<usize>() < REQUESTS {
        let callers = Callers::start(gateway.address(), CALLERS, Duration::ZERO);
        sleep(Duration::from_secs(2)).await;
        for asked in callers.stop().await {
            assert!(!asked.failed(), "{asked:?}");
            *counts.entry(asked.body).or_default() += 1;
        }
    }
    eprintln!("{counts:?}");
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_replicas_get_equal_shares() {
    let _alone = alone().await;
    let directory = tempfile::tempdir().expect("a directory");
    let routes = directory.path().join("routes.toml");
    fs::write(&routes, BY_LOAD).expect("a file");
    let counts = spread(WORK, Some(routes)).await;
    let fair = counts.values().sum::<usize>() / REPLICAS;
    assert_eq!(counts.len(), REPLICAS);
    for (replica, count) in &counts {
        assert!(count.abs_diff(fair) * 10 <= fair, "{replica} got {count}, and not {fair}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_replica_gets_little_traffic() {
    let _alone = alone().await;
    let counts = spread(40 * WORK, None).await;
    let fair = counts.values().sum::<usize>() / REPLICAS;
    let slow = counts.get("orders-00").copied().unwrap_or_default();
    assert!(slow * 5 < fair, "{slow} of {fair}");
}
