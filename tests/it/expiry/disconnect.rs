//! Leases whose `KeepAlive` stream breaks.

use std::time::{Duration, Instant};

use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use waypost_client::proto::{Change, ChangeKind, ChangeReason, HeartbeatRequest, KeepAliveRequest, KeepAliveResponse, RegisterRequest, registry_client::RegistryClient};
use waypost_testing::{registry::{connect, instance, millis, register_request, watch_of}, wait::soon, watch::Follower};

use crate::support::TestServer;

const GRACE: Duration = Duration::from_millis(500);

/// A lease of a minute that is kept alive over a stream on a connection of its own.
struct Kept {
    lease: u64,
    requests: mpsc::Sender<KeepAliveRequest>,
    answers: Streaming<KeepAliveResponse>,
}

impl Kept {
    async fn open(server: &TestServer, id: &str) -> Self {
        let mut registry = RegistryClient::new(connect(server.address()).await);
        let request = RegisterRequest {
            ttl: Some(millis(60_000)),
            disconnect_grace: Some(GRACE.try_into().expect("fits")),
            ..register_request(instance("orders", id))
        };
        let lease = registry.register(request).await.expect("registered").into_inner().lease_id;
        let (requests, outgoing) = mpsc::channel(1);
        let answers = registry.keep_alive(ReceiverStream::new(outgoing)).await.expect("open");
        let mut kept = Self { lease, requests, answers: answers.into_inner() };
        kept.renew().await;
        kept
    }

    async fn renew(&mut self) {
        let request = KeepAliveRequest { lease_ids: vec![self.lease] };
        self.requests.send(request).await.expect("sent");
        let answer = soon("an answer", self.answers.message()).await;
        let answer = answer.expect("the stream is open").expect("an answer");
        assert!(answer.unknown_lease_ids.is_empty());
    }
}

async fn removal(follower: &mut Follower) -> Change {
    loop {
        let change = follower.next_change().await;
        if change.kind() == ChangeKind::Removed {
            return change;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_stream_leaves_the_grace() {
    let server = TestServer::start().await;
    let mut follower = Follower::ready(&mut server.discovery(), watch_of(&["orders"])).await;
    for half_close in [false, true] {
        let Kept { requests, answers, .. } = Kept::open(&server, "a").await;
        let broken = Instant::now();
        drop(requests);
        if !half_close {
            drop(answers);
        }
        let removed = removal(&mut follower).await;
        assert!(broken.elapsed() >= GRACE, "{:?}", broken.elapsed());
        assert_eq!(removed.reason(), ChangeReason::Disconnected, "half-close: {half_close}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn renewal_within_the_grace_cancels_it() {
    let server = TestServer::start().await;
    let mut follower = Follower::ready(&mut server.discovery(), watch_of(&["orders"])).await;
    let by_call = Kept::open(&server, "by call").await.lease;
    let Kept { lease: by_stream, .. } = Kept::open(&server, "by stream").await;
    let _dead = Kept::open(&server, "dead").await.lease;

    let request = HeartbeatRequest { lease_ids: vec![by_call] };
    let renewed = server.registry().heartbeat(request).await.expect("answered").into_inner();
    assert!(renewed.unknown_lease_ids.is_empty());
    let mut again = RegistryClient::new(connect(server.address()).await);
    let (requests, outgoing) = mpsc::channel(1);
    let mut answers =
        again.keep_alive(ReceiverStream::new(outgoing)).await.expect("open").into_inner();
    requests.send(KeepAliveRequest { lease_ids: vec![by_stream] }).await.expect("sent");
    let answer = soon("an answer", answers.message()).await.expect("open").expect("an answer");
    assert!(answer.unknown_lease_ids.is_empty());

    // The lease without renewals shows that the grace of all three has passed.
    let removed = removal(&mut follower).await;
    assert_eq!(removed.instance.expect("an instance").id, "dead");
    assert!(timeout(GRACE, removal(&mut follower)).await.is_err(), "the others live on");
}
