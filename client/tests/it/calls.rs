//! How a channel makes its calls: what it sends again and when, what it passes on, what it bounds.
//! Waits for conditions, never for time.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::HeaderMap;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tonic::{Code, Request, Response, Status};
use waypost_client::{
    BalancedChannel, Client, Instance, Policy, Service,
    correlation::{self, CorrelationLayer},
    proto,
};
use waypost_testing::greeter::{
    GreetRequest, GreetResponse,
    greeter_client::GreeterClient,
    greeter_server::{Greeter, GreeterServer},
};

use crate::support::{Fake, Network, Process};

/// What came to a replica.
#[derive(Clone)]
struct Seen {
    at: String,
    when: Instant,
    headers: HeaderMap,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// What a replica does with a call.
#[derive(Clone)]
enum Act {
    Answer,
    Fail(Status),
    Hang,
    /// Answers once that is true.
    Wait(watch::Receiver<bool>),
}

/// Replicas, what they do, and what came to them, in its order.
#[derive(Clone)]
struct World {
    network: Network,
    fake: Fake,
    client: Client,
    seen: Arc<Mutex<Vec<Seen>>>,
    _registry: Arc<Process>,
}

impl World {
    fn new() -> Self {
        let (network, fake) = (Network::default(), Fake::new());
        let registry = Arc::new(fake.serve(&network, "registry"));
        let connected = network.clone();
        let connector = tower::service_fn(move |uri| connected.clone().connect(uri));
        let builder = Client::builder().connector(connector).registry("http://registry:7510");
        let client = builder.build().unwrap();
        Self { network, fake, client, seen: Arc::default(), _registry: registry }
    }

    /// A replica that does the same with every call.
    fn replica(&self, id: &str, act: Act) -> Process {
        let replica = Replica { id: id.into(), act, seen: Arc::clone(&self.seen) };
        let service = GreeterServer::new(replica);
        let process =
            self.network.start(id, tonic::transport::Server::builder().add_service(service));
        self.fake.place("greeter", id, id);
        process
    }

    /// A channel that knows of so many instances.
    async fn channel(&self, instances: usize) -> BalancedChannel {
        let channel = self.client.channel("greeter");
        until_seen(channel.service(), instances).await;
        channel
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Where calls came to, in their order.
    fn places(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.at).collect()
    }

    async fn until_called(&self, times: usize) {
        until(|| self.seen().len() >= times).await;
    }
}

struct Replica {
    id: String,
    act: Act,
    seen: Arc<Mutex<Vec<Seen>>>,
}

#[tonic::async_trait]
impl Greeter for Replica {
    async fn greet(
        &self,
        request: Request<GreetRequest>,
    ) -> Result<Response<GreetResponse>, Status> {
        let headers = request.metadata().clone().into_headers();
        let seen = Seen { at: self.id.clone(), when: Instant::now(), headers };
        self.seen.lock().unwrap().push(seen);
        match &self.act {
            Act::Answer => {}
            Act::Fail(status) => return Err(status.clone()),
            Act::Hang => std::future::pending().await,
            Act::Wait(released) => drop(released.clone().wait_for(|released| *released).await),
        }
        let greeting = format!("hello {}", request.into_inner().name);
        Ok(Response::new(GreetResponse { greeting, instance: self.id.clone() }))
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it takes too long")
}

async fn until(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    soon(waiting).await;
}

async fn until_seen(service: &Service, instances: usize) {
    let mut changes = service.changes();
    while soon(changes.next()).await.unwrap().len() != instances {}
}

fn request(name: &str) -> Request<GreetRequest> {
    Request::new(GreetRequest { name: name.into() })
}

async fn call(channel: &BalancedChannel, request: Request<GreetRequest>) -> Result<String, Status> {
    let answer = soon(GreeterClient::new(channel.clone()).greet(request)).await?;
    Ok(answer.into_inner().instance)
}

async fn greet(channel: &BalancedChannel) -> Result<String, Status> {
    call(channel, request("you")).await
}

fn unavailable() -> Act {
    Act::Fail(Status::unavailable("not now"))
}

/// `UNAVAILABLE`, with a header that says when to come back.
fn come_back(name: &'static str, value: &'static str) -> Act {
    let mut status = Status::unavailable("not now");
    status.metadata_mut().insert(name, value.parse().unwrap());
    Act::Fail(status)
}

#[tokio::test]
async fn a_call_that_is_answered_unavailable_is_sent_once_unless_told_otherwise() {
    let world = World::new();
    let _a = world.replica("a", unavailable());
    let _b = world.replica("b", unavailable());
    let channel = world.channel(2).await;
    for (times, channel) in [
        (1, channel.clone()),
        (1, channel.clone().retry_idempotent(0)),
        (1, channel.clone().retry_idempotent(1)),
        (3, channel.clone().retry_idempotent(3)),
    ] {
        let before = world.seen().len();
        assert_eq!(greet(&channel).await.unwrap_err().message(), "not now");
        assert_eq!(world.seen().len() - before, times);
    }
}

#[tokio::test]
async fn an_idempotent_call_is_sent_to_another_instance() {
    let world = World::new();
    let _bad = world.replica("bad", unavailable());
    let _good = world.replica("good", Act::Answer);
    let channel = world.channel(2).await.retry_idempotent(2);
    let [first, second] = sent_twice(&world, &channel, "bad").await;
    assert_eq!(second.at, "good");
    assert_eq!(first.header("grpc-previous-rpc-attempts"), None);
    assert_eq!(second.header("grpc-previous-rpc-attempts"), Some("1"));
}

/// The attempts of a call that was sent twice, first to this instance. None fails.
async fn sent_twice(world: &World, channel: &BalancedChannel, first: &str) -> [Seen; 2] {
    let calling = async {
        loop {
            let before = world.seen().len();
            greet(channel).await.unwrap();
            // Two that are under way at once may come in any order; the header tells them apart.
            let mut seen = world.seen().split_off(before);
            seen.sort_by_key(|seen| seen.header("grpc-previous-rpc-attempts").is_some());
            if seen.len() > 1 && seen[0].at == first {
                return seen.try_into().ok().expect("two attempts");
            }
        }
    };
    soon(calling).await
}

#[tokio::test]
async fn a_single_instance_is_tried_again() {
    let world = World::new();
    let _a = world.replica("a", unavailable());
    let channel = world.channel(1).await.retry_idempotent(2);
    greet(&channel).await.unwrap_err();
    assert_eq!(world.places(), ["a", "a"]);
}

#[tokio::test]
async fn a_call_whose_connection_is_lost_is_sent_again_where_that_is_allowed() {
    for (attempts, expected) in [(1, Err(Code::Unavailable)), (2, Ok("b".to_owned()))] {
        let world = World::new();
        let a = world.replica("a", Act::Hang);
        let channel = world.channel(1).await.retry_idempotent(attempts);
        let calling = tokio::spawn(async move { greet(&channel).await });
        world.until_called(1).await;
        let service = world.client.service("greeter");
        let _b = world.replica("b", Act::Answer);
        until_seen(&service, 2).await;
        drop(a);
        let answer = calling.await.unwrap();
        assert_eq!(answer.map_err(|status| status.code()), expected);
    }
}

#[tokio::test]
async fn a_request_that_is_too_long_to_be_kept_is_sent_once() {
    let world = World::new();
    let _a = world.replica("a", unavailable());
    let channel = world.channel(1).await.retry_idempotent(3);
    for (length, times) in [(60_000, 3), (70_000, 1)] {
        let before = world.seen().len();
        let status = call(&channel, request(&"x".repeat(length))).await.unwrap_err();
        assert_eq!(status.message(), "not now");
        assert_eq!(world.seen().len() - before, times, "{length}");
    }
}

#[tokio::test]
async fn what_is_sent_again_stays_within_the_budget() {
    let world = World::new();
    let _a = world.replica("a", unavailable());
    let channel = world.channel(1).await.retry_idempotent(2);
    let began = Instant::now();
    for _ in 0..200 {
        // Clones of a channel have one budget.
        greet(&channel.clone()).await.unwrap_err();
    }
    let again = world.seen().len() - 200;
    // 100 in reserve and a fifth of 200; and more the longer it takes.
    let refilled = began.elapsed().as_secs() as usize * 30;
    assert!((100..=140 + refilled).contains(&again), "{again}");
}

#[tokio::test]
async fn an_instance_says_when_to_come_back() {
    for (name, value) in [("grpc-retry-pushback-ms", "250"), ("retry-after", "1")] {
        let world = World::new();
        let _a = world.replica("a", come_back(name, value));
        let channel = world.channel(1).await.retry_idempotent(2);
        greet(&channel).await.unwrap_err();
        let [first, second] = &world.seen()[..] else { panic!("two attempts") };
        let wait = second.when - first.when;
        let least = if name == "retry-after" { 1_000 } else { 250 };
        assert!(wait >= Duration::from_millis(least), "{wait:?}");
    }
}

#[tokio::test]
async fn an_instance_says_not_to_come_back() {
    for value in ["-1", "soon"] {
        let world = World::new();
        let _a = world.replica("a", come_back("grpc-retry-pushback-ms", value));
        let channel = world.channel(1).await.retry_idempotent(5);
        greet(&channel).await.unwrap_err();
        assert_eq!(world.seen().len(), 1, "{value}");
    }
}

#[tokio::test]
async fn a_wait_that_outlasts_the_call_is_not_begun() {
    let world = World::new();
    let _a = world.replica("a", come_back("grpc-retry-pushback-ms", "60000"));
    let channel = world.channel(1).await.retry_idempotent(5);
    for timeout in [None, Some(Duration::from_secs(10))] {
        let mut request = request("you");
        timeout.into_iter().for_each(|timeout| request.set_timeout(timeout));
        let began = Instant::now();
        assert_eq!(call(&channel, request).await.unwrap_err().code(), Code::Unavailable);
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn each_attempt_tells_what_is_left_of_the_calls_time() {
    let world = World::new();
    let _a = world.replica("a", come_back("grpc-retry-pushback-ms", "200"));
    let channel = world.channel(1).await.retry_idempotent(2);
    let mut request = request("you");
    request.set_timeout(Duration::from_secs(30));
    call(&channel, request).await.unwrap_err();
    let seen = world.seen();
    let left: Vec<Duration> = seen.iter().map(|seen| left(seen.header("grpc-timeout"))).collect();
    assert!(left[0] < Duration::from_secs(30), "{left:?}");
    assert!(left[0] > Duration::from_secs(10), "{left:?}");
    assert!(left[1] + Duration::from_millis(200) <= left[0], "{left:?}");
    // Nothing is made up for a call without a timeout.
    greet(&channel).await.unwrap_err();
    assert_eq!(world.seen()[2].header("grpc-timeout"), None);
}

/// A `grpc-timeout` in micro- or milliseconds.
fn left(timeout: Option<&str>) -> Duration {
    let timeout = timeout.unwrap();
    let (count, unit) = timeout.split_at(timeout.len() - 1);
    assert!(count.len() <= 8, "{timeout}");
    let count = count.parse().unwrap();
    match unit {
        "u" => Duration::from_micros(count),
        "m" => Duration::from_millis(count),
        _ => panic!("{timeout}"),
    }
}

/// A service of these ports on this machine.
fn fixed(ports: impl IntoIterator<Item = u16>) -> Service {
    Service::fixed(ports.into_iter().map(|port| Instance {
        service: "greeter".into(),
        id: port.to_string(),
        host: "127.0.0.1".into(),
        port: port.into(),
        status: proto::Status::Up.into(),
        ..Instance::default()
    }))
}

/// How a server turns away all calls without a look at them.
#[derive(Clone, Copy)]
enum Refusal {
    /// Each by a reset.
    Reset,
    /// By a goodbye to their connection.
    Goodbye,
}

/// A server that turns away all calls. Its port, and how many it turned away.
async fn refusing(refusal: Refusal) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(refuse(stream, refusal, Arc::clone(&count)));
        }
    });
    (port, refused)
}

/// HTTP/2 as far as it is needed: frames of a length, a type, flags and a stream (RFC 9113, 4.1).
async fn refuse(
    mut stream: TcpStream,
    refusal: Refusal,
    count: Arc<AtomicUsize>,
) -> std::io::Result<()> {
    let (headers, reset, settings, goodbye) = (1, 3, 4, 7);
    stream.read_exact(&mut [0; 24]).await?;
    stream.write_all(&[0, 0, 0, settings, 0, 0, 0, 0, 0]).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [long, longer, length, kind, _, id @ ..] = head;
        let length = u32::from_be_bytes([0, long, longer, length]);
        stream.read_exact(&mut vec![0; length as usize]).await?;
        if kind == headers {
            count.fetch_add(1, Ordering::Relaxed);
            let mut frame = match refusal {
                Refusal::Reset => vec![0, 0, 4, reset, 0],
                // Streams up to 0, which is none, were looked at.
                Refusal::Goodbye => vec![0, 0, 8, goodbye, 0, 0, 0, 0, 0],
            };
            frame.extend(
                match refusal {
                    Refusal::Reset => [id, [0, 0, 0, 7]],
                    Refusal::Goodbye => [[0; 4], [0; 4]],
                }
                .concat(),
            );
            stream.write_all(&frame).await?;
        }
    }
}

/// A replica on a port of this machine.
async fn listening() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let replica = Replica { id: "good".into(), act: Act::Answer, seen: Arc::default() };
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(GreeterServer::new(replica));
    tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
    port
}

#[tokio::test]
async fn a_call_that_an_instance_refuses_unseen_is_sent_to_another_one_unasked() {
    for refusal in [Refusal::Reset, Refusal::Goodbye] {
        let (bad, refused) = refusing(refusal).await;
        let channel = fixed([bad, listening().await]).channel();
        let calling = async {
            while refused.load(Ordering::Relaxed) == 0 {
                assert_eq!(greet(&channel).await.unwrap(), "good");
            }
        };
        soon(calling).await;
    }
}

#[tokio::test]
async fn where_all_refuse_a_call_it_fails_soon() {
    for refusal in [Refusal::Reset, Refusal::Goodbye] {
        let (bad, refused) = refusing(refusal).await;
        let channel = fixed([bad]).channel();
        assert_eq!(greet(&channel).await.unwrap_err().code(), Code::Unavailable);
        assert_eq!(refused.load(Ordering::Relaxed), 2);
    }
}

#[tokio::test]
async fn where_most_take_no_connection_no_call_fails() {
    let world = World::new();
    for id in ["a", "b", "c", "d"] {
        drop(world.replica(id, Act::Answer));
    }
    let _good = world.replica("good", Act::Answer);
    let channel = world.channel(5).await;
    for _ in 0..1_000 {
        assert_eq!(greet(&channel).await.unwrap(), "good");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_instance_never_has_more_calls_in_flight_than_it_may() {
    let world = World::new();
    let release = watch::Sender::new(false);
    let _a = world.replica("a", Act::Wait(release.subscribe()));
    let channel = world.channel(1).await.concurrency_limit(3);
    let began = Instant::now();
    let calls: Vec<_> = (0..64)
        .map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move { greet(&channel).await })
        })
        .collect();
    until(|| calls.iter().filter(|call| !call.is_finished()).count() <= 3).await;
    assert!(began.elapsed() < Duration::from_secs(5), "the others fail at once");
    release.send_replace(true);
    let mut passed = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => passed += 1,
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted);
                assert!(status.message().ends_with("3 calls in flight, their limit"), "{status:?}");
            }
        }
    }
    assert!((1..=3).contains(&passed), "{passed}");
    assert_eq!(world.seen().len(), passed);
    // They have ended: there is room again.
    assert_eq!(greet(&channel).await.unwrap(), "a");
}

#[tokio::test]
async fn calls_go_to_where_there_is_room() {
    let world = World::new();
    let release = watch::Sender::new(false);
    let _a = world.replica("a", Act::Wait(release.subscribe()));
    let _b = world.replica("b", Act::Wait(release.subscribe()));
    let channel = world.channel(2).await.concurrency_limit(4);
    let calls: Vec<_> = (1..=8)
        .map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move { greet(&channel).await })
        })
        .collect();
    world.until_called(8).await;
    assert_eq!(world.places().iter().filter(|at| *at == "a").count(), 4);
    assert_eq!(greet(&channel).await.unwrap_err().code(), Code::ResourceExhausted);
    release.send_replace(true);
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_call_waits_for_an_instance_where_that_is_asked_for() {
    let world = World::new();
    let channel = world.channel(0).await;
    assert_eq!(greet(&channel).await.unwrap_err().code(), Code::Unavailable);
    let patient = channel.wait_for_ready(Duration::from_secs(15));
    let calling = async {
        let mut calling = std::pin::pin!(greet(&patient));
        // It is under way before there is an instance.
        tokio::select! {
            biased;
            answer = &mut calling => panic!("{answer:?}"),
            () = std::future::ready(()) => {}
        }
        let _a = world.replica("a", Act::Answer);
        calling.await
    };
    assert_eq!(calling.await.unwrap(), "a");
}

#[tokio::test]
async fn no_call_waits_for_an_instance_longer_than_it_may() {
    let world = World::new();
    let channel = world.channel(0).await.wait_for_ready(Duration::from_millis(100));
    let began = Instant::now();
    let status = greet(&channel).await.unwrap_err();
    assert!(began.elapsed() >= Duration::from_millis(100));
    assert_eq!(status.message(), "no instance of greeter: the service has no instances");
    let channel = channel.wait_for_ready(Duration::MAX);
    let mut request = request("you");
    request.set_timeout(Duration::from_millis(100));
    let status = call(&channel, request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    // Of a service that never changes nothing is to be expected.
    let fixed = Service::fixed([]).channel().wait_for_ready(Duration::MAX);
    assert_eq!(greet(&fixed).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_slow_call_is_sent_to_a_second_instance_and_the_first_answer_counts() {
    let world = World::new();
    let _slow = world.replica("slow", Act::Hang);
    let _good = world.replica("good", Act::Answer);
    let channel = world.channel(2).await.hedge_idempotent(Duration::from_millis(20));
    let [_, second] = sent_twice(&world, &channel, "slow").await;
    assert_eq!(second.at, "good");
    assert_eq!(second.header("grpc-previous-rpc-attempts"), Some("1"));
}

#[tokio::test]
async fn the_attempt_that_lost_is_cancelled() {
    let world = World::new();
    let _slow = world.replica("slow", Act::Hang);
    let _good = world.replica("good", Act::Answer);
    let service = world.channel(2).await.service().with_policy(Policy::RoundRobin);
    // The slow one is called again only if nothing is in flight there any more.
    let channel = service.channel().concurrency_limit(1);
    let channel = channel.hedge_idempotent(Duration::from_millis(5));
    let calling = async {
        while world.places().iter().filter(|at| *at == "slow").count() < 3 {
            assert_eq!(greet(&channel).await.unwrap(), "good");
        }
    };
    soon(calling).await;
}

#[tokio::test]
async fn a_call_is_sent_twice_at_most_and_to_two_instances() {
    let world = World::new();
    let release = watch::Sender::new(false);
    let _replicas: Vec<_> =
        ["a", "b", "c"].map(|id| world.replica(id, Act::Wait(release.subscribe()))).into();
    let channel = world.channel(3).await.hedge_idempotent(Duration::from_millis(5));
    let calling = tokio::spawn(async move { greet(&channel).await });
    world.until_called(2).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    release.send_replace(true);
    calling.await.unwrap().unwrap();
    let mut places = world.places();
    places.dedup();
    assert_eq!(places.len(), 2, "{places:?}");
    assert_eq!(world.seen().len(), 2);
}

#[tokio::test]
async fn a_second_attempt_that_fails_leaves_the_first_one_alone() {
    let calling = async {
        // Until the slow one is first. Anew each time: one that failed often would be ejected.
        loop {
            let world = World::new();
            let release = watch::Sender::new(false);
            let _slow = world.replica("slow", Act::Wait(release.subscribe()));
            let _bad = world.replica("bad", unavailable());
            let channel = world.channel(2).await.hedge_idempotent(Duration::from_millis(20));
            let call = tokio::spawn(async move { greet(&channel).await });
            until(|| call.is_finished() || world.seen().len() > 1).await;
            if world.seen().len() > 1 {
                release.send_replace(true);
                return call.await.unwrap();
            }
            call.await.unwrap().unwrap_err();
        }
    };
    assert_eq!(soon(calling).await.unwrap(), "slow");
}

#[tokio::test]
async fn a_single_instance_is_not_sent_a_call_twice() {
    let world = World::new();
    let release = watch::Sender::new(false);
    let _a = world.replica("a", Act::Wait(release.subscribe()));
    let channel = world.channel(1).await.hedge_idempotent(Duration::from_millis(1));
    let calling = tokio::spawn(async move { greet(&channel).await });
    world.until_called(1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    release.send_replace(true);
    assert_eq!(calling.await.unwrap().unwrap(), "a");
    assert_eq!(world.places(), ["a"]);
}

#[tokio::test]
async fn a_silent_replica_costs_no_idempotent_call_with_a_deadline() {
    let world = World::new();
    let _silent = world.replica("silent", Act::Hang);
    let _b = world.replica("b", Act::Answer);
    let _c = world.replica("c", Act::Answer);
    let service = world.channel(3).await.service().with_policy(Policy::RoundRobin);
    let channel = service.channel().retry_idempotent(2);
    let at_silent = || world.places().iter().filter(|at| *at == "silent").count();
    let mut calls = 0;
    let calling = async {
        while at_silent() < 5 {
            let mut request = request("you");
            request.set_timeout(Duration::from_millis(900));
            assert_ne!(call(&channel, request).await.unwrap(), "silent");
            calls += 1;
        }
        // By now it is ejected.
        for _ in 0..20 {
            greet(&channel).await.unwrap();
        }
    };
    soon(calling).await;
    assert_eq!(at_silent(), 5, "{calls} calls");
}

/// Passes calls on to the next one.
struct Relay(BalancedChannel);

#[tonic::async_trait]
impl Greeter for Relay {
    async fn greet(
        &self,
        request: Request<GreetRequest>,
    ) -> Result<Response<GreetResponse>, Status> {
        GreeterClient::new(self.0.clone()).greet(request.into_inner()).await
    }
}

#[tokio::test]
async fn what_tells_a_request_apart_travels_through_a_server_to_the_next() {
    let world = World::new();
    let _a = world.replica("a", Act::Answer);
    let relay = GreeterServer::new(Relay(world.channel(1).await));
    let server = tonic::transport::Server::builder().layer(CorrelationLayer).add_service(relay);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", "00-1-2-01".parse().unwrap());
    headers.insert("x-request-id", "7".parse().unwrap());
    headers.insert("cookie", "secret".parse().unwrap());
    let relayed = fixed([port]).channel();
    let calling = correlation::scope(&headers, async {
        greet(&relayed).await.unwrap();
        // What a call says itself stays.
        let mut own = request("you");
        own.metadata_mut().insert("x-request-id", "8".parse().unwrap());
        call(&relayed, own).await.unwrap();
    });
    calling.await;
    greet(&relayed).await.unwrap();
    let seen = world.seen();
    let of = |name| -> Vec<_> { seen.iter().map(|seen| seen.header(name)).collect() };
    assert_eq!(of("x-request-id"), [Some("7"), Some("8"), None]);
    assert_eq!(of("traceparent"), [Some("00-1-2-01"), Some("00-1-2-01"), None]);
    assert_eq!(of("cookie"), [None; 3]);
}
