//! Ways to the registry: several addresses, connections that the network swallowed, and processes
//! that have registered the same id.

use std::net::TcpListener as StdListener;

use rustix::process::Signal;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use waypost_testing::wait::soon;

use super::{
    orders,
    support::{Gate, Running, Server, run},
    watch_orders,
};

/// A way to a server on which what is open can go silent: nothing arrives any more, on either side,
/// and no end is noticed.
struct Swallower {
    url: String,
    swallowed: watch::Sender<u64>,
    _tasks: JoinSet<()>,
}

impl Swallower {
    async fn before(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (address, swallowed) = (server.address(), watch::Sender::new(0));
        let sender = swallowed.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let mut swallowed = sender.subscribe();
                connections.spawn(async move {
                    let mut far = TcpStream::connect(address).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => return,
                        _ = swallowed.changed() => {}
                    }
                    // Both stay open.
                    std::future::pending::<()>().await;
                });
            }
        });
        Self { url, swallowed, _tasks: tasks }
    }

    fn swallow(&self) {
        self.swallowed.send_modify(|count| *count += 1);
    }
}

#[tokio::test]
async fn watch_recovers_from_a_silent_connection() {
    let server = Server::start().await;
    let way = Swallower::before(&server).await;
    let _a = server.register(orders("a")).await;
    let mut watch = Running::start(&way.url, &["watch", "orders", "--output", "json"]);
    assert_eq!(watch.event().await["kind"], "PRESENT");
    for id in ["b", "c"] {
        way.swallow();
        let _replica = server.register(orders(id)).await;
        let lost = watch.error_line().await;
        assert!(lost.starts_with("waypost: can't reach the registry at "), "{lost}");
        assert_eq!(watch.error_line().await, "waypost: reconnected to the registry");
        let added = watch.event().await;
        assert_eq!((&added["kind"], &added["instance"]["id"]), (&"ADDED".into(), &id.into()));
        drop(_replica);
        assert_eq!(watch.event().await["kind"], "REMOVED");
    }
}

#[tokio::test]
async fn watch_recovers_from_a_stalled_registry() {
    let server = Server::start().await;
    let a = server.register(orders("a")).await;
    let mut watch = server.start_command(&["watch", "orders", "--output", "json"]);
    assert_eq!(watch.event().await["kind"], "PRESENT");
    server.process.signal(Signal::STOP);
    let lost = watch.error_line().await;
    assert!(lost.contains("can't reach the registry"), "{lost}");
    server.process.signal(Signal::CONT);
    assert_eq!(watch.error_line().await, "waypost: reconnected to the registry");
    soon("the deregistration", a.deregister()).await.unwrap();
    assert_eq!(watch.event().await["kind"], "REMOVED");
}

/// The URL of a registry that accepts connections and never responds.
fn silent() -> (StdListener, String) {
    let silent = StdListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    (silent, url)
}

#[tokio::test]
async fn commands_try_addresses_in_order() {
    let server = Server::start().await;
    let (away, (_silent, silent)) = (Gate::before(None).await, silent());
    let urls = format!("{}, {silent},{}", away.url(), server.url());
    let arguments = ["register", "--service", "orders", "--address", "h:1", "--id", "a"];
    let mut register = Running::start(&urls, &arguments);
    assert!(register.line().await.starts_with("registered orders/a at h:1"));
    let listed = run(&urls, &["instances", "orders", "--output", "json"]).await;
    assert_eq!((listed.code, listed.stderr.as_str()), (0, ""));
    assert!(listed.stdout.contains(r#""id": "a""#), "{}", listed.stdout);
    let drained = run(&urls, &["drain", "orders", "a"]).await;
    assert_eq!((drained.code, drained.stdout.as_str()), (0, "orders/a is draining, revision 2\n"));
    // What one refuses is not tried elsewhere.
    let urls = format!("{},{}", server.url(), away.url());
    run(&urls, &["drain", "orders", "b"]).await.refused("b");
    register.signal(Signal::TERM);
    assert_eq!(register.end().await.0.code(), Some(0));
}

#[tokio::test]
async fn every_address_that_fails_is_named() {
    let (first, second) = (Gate::before(None).await, Gate::before(None).await);
    let urls = format!("{},{}", first.url(), second.url());
    let finished = run(&urls, &["services"]).await;
    for url in [first.url(), second.url()] {
        finished.refused(&format!("can't reach the registry at {url}: "));
    }
    let bad = [
        ("http://127.0.0.1:1,,http://127.0.0.1:2", ""),
        ("http://127.0.0.1:1,127.0.0.1:2", ""),
        ("http://127.0.0.1:1,http://[fe80::1%25eth0]:7510", "zone"),
    ];
    for (urls, reason) in bad {
        let finished = run(urls, &["services"]).await;
        assert_eq!(finished.code, 2, "{urls}: {}", finished.stderr);
        assert!(finished.stderr.contains(reason), "{urls}: {}", finished.stderr);
    }
}

#[tokio::test]
async fn watch_resumes_at_the_next_address() {
    let server = Server::start().await;
    let gate = Gate::before(Some(server.address())).await;
    let _a = server.register(orders("a")).await;
    let urls = format!("{},{}", gate.url(), server.url());
    let mut watch = Running::start(&urls, &["watch", "orders", "--output", "json"]);
    assert_eq!(watch.event().await["kind"], "PRESENT");
    gate.put(None);
    let _b = server.register(orders("b")).await;
    let added = watch.event().await;
    assert_eq!((&added["kind"], &added["instance"]["id"]), (&"ADDED".into(), &"b".into()));
}

#[tokio::test]
async fn fenced_process_stays_out_and_names_its_successor() {
    let server = Server::start().await;
    let (mut watch, _marker) = watch_orders(&server).await;
    let start = |address: &str| {
        let base = ["register", "--service", "orders", "--id", "a", "--ttl", "1s", "--address"];
        server.start_command(&[&base[..], &[address]].concat())
    };
    let mut first = start("10.0.0.1:80");
    assert!(first.line().await.starts_with("registered orders/a"));
    assert_eq!(watch.event().await["kind"], "ADDED");
    let mut second = start("[fd00::2]:81");
    assert!(second.line().await.starts_with("registered orders/a"));
    assert_eq!(watch.event().await["reason"], "REPLACED");
    let warning = loop {
        let line = first.error_line().await;
        if line.contains("--id") {
            break line;
        }
    };
    assert!(warning.contains("another process at [fd00::2]:81 with"), "{warning}");
    // Nothing happens between them any more: the next event is the second one's own end.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    second.signal(Signal::TERM);
    assert_eq!(watch.event().await["reason"], "DEREGISTERED");
    let back = watch.event().await;
    assert_eq!((&back["kind"], &back["instance"]["host"]), (&"ADDED".into(), &"10.0.0.1".into()));
    // After a kill, the next one takes over at once.
    first.signal(Signal::KILL);
    let mut third = start("10.0.0.1:80");
    assert!(third.line().await.starts_with("registered orders/a"));
    let leases = |status: serde_json::Value| status["leases"].as_u64();
    assert_eq!(leases(server.json(&["status"]).await), Some(2));
}
