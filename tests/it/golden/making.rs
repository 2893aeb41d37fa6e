//! Makes a store with something of everything in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use prost_types::FieldMask;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use waypost_client::proto::{
    Cursor, DeregisterRequest, Instance, KeepAliveRequest, RegisterRequest, Status, UpdateRequest,
    WatchRequest, discovery_client::DiscoveryClient, registry_client::RegistryClient,
};
use waypost_testing::{
    process::output,
    registry::{Identity, connect, identity, instance, instance_in, millis},
    wait::soon,
    watch::Follower,
};

use crate::{
    golden::{
        NAMESPACES,
        record::{Golden, GrantedLease, change_record, instance_record},
        serve, status,
    },
    support::waypost,
};

const LONG_MS: u64 = 300_000;
const SHORT_MS: u64 = 1_000;
/// Leases that expire together; the last of them are held.
const RUN_OUT: usize = 12;

/// Makes the store, the same after an end in order, an image, and what has to come of each.
pub(crate) async fn make(format: &Path) {
    let directory = TempDir::new().expect("a directory");
    let data = directory.path().join("data");
    let mut server = serve(&data).await;
    let channel = connect(server.address()).await;
    let mut maker = Maker { channel, leases: Vec::new() };
    soon("what happens in one namespace", maker.come_and_go()).await;
    soon("what happens in the other", maker.run_out()).await;
    let golden = maker.tell().await;

    for name in ["killed", "stopped"] {
        fs::create_dir_all(format.join(name)).expect("a directory can be made");
    }
    let mut backup = waypost(directory.path());
    backup.args(["backup", "--registry", &format!("http://{}", server.address())]);
    backup.arg(format.join("image"));
    assert!(output(backup).await.status.success(), "it is backed up");
    server.kill().await;
    keep(&data, &format.join("killed"));
    let mut server = serve(&data).await;
    server.signal(Signal::TERM);
    server.end().await;
    keep(&data, &format.join("stopped"));
    golden.write(&format.join("expected.json"));
}

fn keep(data: &Path, place: &Path) {
    let file = "registry.redb";
    fs::copy(data.join(file), place.join(file)).expect("it can be copied");
}

/// An instance with a value in every field.
fn full() -> Instance {
    let metadata = [("größe", "\u{1}漢\n"), (".", "")];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned()));
    Instance {
        ports: [("admin".to_owned(), 65535), ("metrics".to_owned(), 9090)].into(),
        weight: Some(50),
        metadata: metadata.into(),
        status: Status::Starting.into(),
        ..instance_in("orders", "a", "eu-1a", "2.4.1+build")
    }
}

/// The messages of a watch of a namespace.
type State = BTreeMap<Identity, Instance>;

/// The maker of a change.
struct Maker {
    channel: Channel,
    /// All that were granted, in their order.
    leases: Vec<GrantedLease>,
}

impl Maker {
    fn registry(&self) -> RegistryClient<Channel> {
        RegistryClient::new(self.channel.clone())
    }

    /// Registers, and gives what the server made of it, and the lease.
    async fn register(&mut self, instance: Instance, ttl_ms: u64) -> (Instance, u64) {
        // The grace of those that break their stream is none.
        let (ttl, disconnect_grace) = (Some(millis(ttl_ms)), Some(millis(0)));
        let request = RegisterRequest { instance: Some(instance), ttl, disconnect_grace };
        let answer = self.registry().register(request).await.expect("registered").into_inner();
        let instance = answer.instance.expect("an instance");
        self.leases.push(GrantedLease { identity: identity(&instance), lease_id: answer.lease_id });
        (instance, answer.lease_id)
    }

    /// By the lease, or by the instance's name where it is 0.
    async fn update(&mut self, lease_id: u64, path: &str, instance: Instance) {
        let named = if lease_id == 0 { instance.clone() } else { Instance::default() };
        let request = UpdateRequest {
            lease_id,
            namespace: named.namespace,
            service: named.service,
            id: named.id,
            instance: Some(instance),
            update_mask: Some(FieldMask { paths: vec![path.to_owned()] }),
        };
        self.registry().update(request).await.expect("updated");
    }

    async fn come_and_go(&mut self) {
        let (a, a_lease) = self.register(full(), LONG_MS).await;
        // Its id is the server's.
        let (b, _) = self.register(instance("orders", ""), LONG_MS).await;
        let c = Instance {
            host: "2001:db8::1".to_owned(),
            weight: Some(0),
            status: Status::Draining.into(),
            ..instance("billing", "c")
        };
        self.register(c.clone(), LONG_MS).await;
        self.update(a_lease, "status", Instance { status: Status::Up.into(), ..a }).await;
        let metadata = [("k".to_owned(), "v".repeat(4096))].into();
        self.update(a_lease, "metadata", Instance { metadata, ..full() }).await;
        let metadata = full().metadata;
        self.update(a_lease, "metadata", Instance { metadata, ..full() }).await;
        let b = instance_in("orders", &b.id, "eu-1b", "");
        self.update(0, "zone", b.clone()).await;
        // Takeovers with the same content and with another.
        self.register(b, LONG_MS).await;
        self.register(Instance { status: Status::Down.into(), port: 1, ..c }, LONG_MS / 2).await;
        self.leave().await;
    }

    /// Makes removals of each reason, and a registration after one.
    async fn leave(&mut self) {
        let (_, d_lease) = self.register(instance("orders", "d"), LONG_MS).await;
        self.register(instance("orders", "e"), LONG_MS).await;
        let (_, f_lease) = self.register(instance("only", "f"), LONG_MS).await;
        self.register(instance("orders", "g"), SHORT_MS).await;
        let by_lease = DeregisterRequest { lease_id: d_lease, ..DeregisterRequest::default() };
        self.registry().deregister(by_lease).await.expect("deregistered");
        let (service, id) = ("orders".to_owned(), "e".to_owned());
        let by_name = DeregisterRequest { service, id, ..DeregisterRequest::default() };
        self.registry().deregister(by_name).await.expect("evicted");
        let (requests, outgoing) = mpsc::channel(1);
        let answers = self.registry().keep_alive(ReceiverStream::new(outgoing)).await;
        let mut answers = answers.expect("open").into_inner();
        requests.send(KeepAliveRequest { lease_ids: vec![f_lease] }).await.expect("sent");
        answers.message().await.expect("the stream is open").expect("an answer");
        drop((requests, answers));
        self.register(instance("orders", "d"), LONG_MS).await;
        let gone = |state: &State| !state.keys().any(|(_, _, id)| id == "f" || id == "g");
        self.until("default", gone).await;
    }

    /// Lets so many leases expire that protection holds the last of them.
    async fn run_out(&mut self) {
        for number in 0..RUN_OUT {
            let instance = instance("carts", &format!("h{number:02}"));
            let instance = Instance { namespace: "shop".to_owned(), ..instance };
            self.register(instance, SHORT_MS).await;
        }
        let held =
            |state: &State| state.values().all(|instance| instance.status() == Status::Suspect);
        self.until("shop", held).await;
    }

    async fn until(&self, namespace: &str, reached: impl Fn(&State) -> bool) {
        let mut discovery = DiscoveryClient::new(self.channel.clone());
        let request = WatchRequest { namespace: namespace.to_owned(), ..WatchRequest::default() };
        let mut follower = Follower::ready(&mut discovery, request).await;
        while !reached(&follower.state) {
            follower.message().await;
        }
    }

    /// Writes the present and the past state.
    async fn tell(self) -> Golden {
        let status = status(&self.channel).await;
        let (mut state, mut changes) = (State::new(), Vec::new());
        for namespace in NAMESPACES {
            let cursor = Cursor { history_id: status.history_id.clone(), revision: 0 };
            let (namespace, resume) = (namespace.to_owned(), Some(cursor));
            let request = WatchRequest { namespace, resume, ..WatchRequest::default() };
            let mut discovery = DiscoveryClient::new(self.channel.clone());
            let mut follower = Follower::open(&mut discovery, request).await;
            follower.reach(status.revision).await;
            assert_eq!(follower.snapshots, 0, "the log has all of it");
            state.extend(follower.state);
            changes.extend(follower.changes);
        }
        changes.sort_by_key(|change| change.revision);
        assert_eq!(changes.len() as u64, status.revision, "every change is told");
        // The last lease of those that are there.
        let (mut leases, mut dead_leases) = (Vec::new(), Vec::new());
        let mut seen = BTreeSet::new();
        for held in self.leases.into_iter().rev() {
            if seen.insert(held.identity.clone()) && state.contains_key(&held.identity) {
                leases.push(held);
            } else {
                dead_leases.push(held.lease_id);
            }
        }
        Golden {
            history_id: status.history_id,
            revision: status.revision,
            instances: state.values().map(instance_record).collect(),
            changes: changes.iter().map(change_record).collect(),
            leases,
            dead_leases,
        }
    }
}
