//! `waypost backup`, `waypost restore` and `waypost check`, and the stores that they leave.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpSocket, sync::watch, task::JoinSet, time::sleep};
use tonic::transport::{Channel, Endpoint};
use waypost_client::{
    Instance,
    proto::{
        Cursor, HeartbeatRequest, RegisterRequest, ResolveRequest, WatchRequest,
        discovery_client::DiscoveryClient, registry_client::RegistryClient, watch_response::Event,
    },
};
use waypost_testing::wait::soon;

use super::{
    orders,
    support::{Finished, Running, Server, finish, program, run},
    words,
};

/// Longer than any of the tests.
const TTL: Duration = Duration::from_secs(120);

/// The responses of a registry.
#[derive(Clone, Default)]
struct Answered {
    instances: Vec<Instance>,
    leases: Vec<u64>,
    cursor: Option<Cursor>,
}

/// Registers one instance after the other until the receiver is dropped.
async fn register(server: Channel, answered: watch::Sender<Answered>) {
    let mut registry = RegistryClient::new(server);
    for number in 0_u64.. {
        let instance = Instance {
            service: "orders".into(),
            id: format!("i{number:05}"),
            host: "10.0.0.1".into(),
            port: 80,
            metadata: [("key".to_owned(), "value".repeat(100))].into(),
            ..Instance::default()
        };
        let ttl = Some(TTL.try_into().unwrap());
        let request = RegisterRequest { instance: Some(instance), ttl, ..Default::default() };
        let answer = registry.register(request).await.unwrap().into_inner();
        answered.send_modify(|answered| {
            answered.instances.extend(answer.instance);
            answered.leases.push(answer.lease_id);
            answered.cursor = answer.cursor;
        });
    }
}

/// Places for stores and images.
struct Places(TempDir);

impl Places {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// The instances, in order.
    fn names(&self) -> Vec<String> {
        names(self.0.path())
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = directory.read_dir().unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A command that needs no registry.
async fn offline(arguments: &[&str]) -> Finished {
    finish(&mut program(arguments)).await
}

/// The output of such a command.
async fn told(arguments: &[&str]) -> Value {
    let finished = offline(&[arguments, &["--output", "json"]].concat()).await;
    assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
    serde_json::from_str(&finished.stdout).unwrap()
}

async fn channel(server: &Server) -> Channel {
    soon("a connection", Endpoint::from_shared(server.url()).unwrap().connect()).await.unwrap()
}

#[tokio::test]
async fn backup_under_load_contains_earlier_acknowledged_writes() {
    let places = Places::new();
    let before = Server::start_on(&places.path("before")).await;
    let (sender, mut answers) = watch::channel(Answered::default());
    let mut load = JoinSet::new();
    load.spawn(register(channel(&before).await, sender));
    let mut some = async |least: usize| {
        let enough = answers.wait_for(|answered| answered.leases.len() >= least);
        soon("registrations", enough).await.unwrap().clone()
    };
    let answered = some(300).await;
    let image = places.text("image");
    let backed_up = before.json(&["backup", &image]).await;
    // It went on all the time.
    some(answered.leases.len() + 1).await;
    load.shutdown().await;
    let cursor = answered.cursor.unwrap();
    let revision = backed_up["revision"].as_u64().unwrap();
    assert!(revision >= cursor.revision, "{backed_up}");
    assert_eq!(backed_up["instances"], revision, "every registration took a revision");
    assert_eq!(backed_up["bytes"], fs::metadata(&image).unwrap().len());

    let restored = told(&["restore", &image, "--data-dir", &places.text("after")]).await;
    assert_eq!(
        (&restored["revision"], &restored["instances"]),
        (&revision.into(), &revision.into())
    );
    assert_ne!(restored["history_id"], cursor.history_id.as_str());
    let after = Server::start_on(&places.path("after")).await;
    let status = after.json(&["status"]).await;
    assert_eq!(
        (&status["history_id"], &status["revision"]),
        (&restored["history_id"], &revision.into())
    );
    let channel = channel(&after).await;
    let mut discovery = DiscoveryClient::new(channel.clone());
    let request = ResolveRequest { service: "orders".into(), ..Default::default() };
    let found = soon("the instances", discovery.resolve(request)).await.unwrap().into_inner();
    // In the order of their ids, which is that of their registrations.
    assert_eq!(found.instances[..answered.instances.len()], answered.instances);
    let request = HeartbeatRequest { lease_ids: answered.leases };
    let heartbeat = RegistryClient::new(channel).heartbeat(request).await.unwrap();
    assert_eq!(heartbeat.into_inner().unknown_lease_ids, [0; 0]);
    let request = WatchRequest { resume: Some(cursor), ..Default::default() };
    let mut watch = soon("a watch", discovery.watch(request)).await.unwrap().into_inner();
    let first = soon("a snapshot", watch.message()).await.unwrap().unwrap();
    assert!(matches!(first.event, Some(Event::Snapshot(_))), "{first:?}");
    assert_eq!(first.cursor.unwrap().history_id, restored["history_id"].as_str().unwrap());
}

#[tokio::test]
async fn backup_replaces_the_file_once_it_is_complete() {
    let places = Places::new();
    let server = Server::start_on(&places.path("store")).await;
    let image = places.text("image");
    fs::write(&image, "another").unwrap();
    let _a = server.register(orders("a")).await;
    let done = server.run(&["backup", &image]).await;
    let bytes = fs::metadata(&image).unwrap().len();
    let told = format!("backed up 1 instances at revision 1 to {image}, {bytes} bytes\n");
    assert_eq!((done.code, done.stdout, done.stderr.as_str()), (0, told, ""));
    assert_eq!(places.names(), ["image", "store"]);
    let mut here = program(["backup", "image", "--registry", &server.url()]);
    assert_eq!(finish(here.current_dir(places.0.path())).await.code, 0);
    assert_eq!(places.names(), ["image", "store"]);
}

#[tokio::test]
async fn failed_backup_changes_nothing() {
    let places = Places::new();
    let server = Server::start().await;
    let image = places.text("image");
    fs::write(&image, "the one before").unwrap();
    let backup = ["backup", image.as_str()];
    server.run(&backup).await.refused("the memory store keeps nothing to back up");
    // Bound, so that the port stays free of others, but not listening.
    let port = TcpSocket::new_v4().unwrap();
    port.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nobody = format!("http://{}", port.local_addr().unwrap());
    run(&nobody, &backup).await.refused("can't reach the registry");
    let nowhere = places.text("nowhere/image");
    server.run(&["backup", &nowhere]).await.refused("No such file or directory");
    for other in [places.0.path().to_str().unwrap(), "/dev/null", "/"] {
        server.run(&["backup", other]).await.refused("not a regular file");
    }
    assert_eq!(places.names(), ["image"]);
    assert_eq!(fs::read_to_string(&image).unwrap(), "the one before");
}

#[tokio::test]
async fn stopped_backup_leaves_no_file() {
    let places = Places::new();
    // Connections complete, and are never accepted.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let backup = Running::start(&url, &["backup", &places.text("image")]);
    soon("the beginning", async {
        while places.names().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    backup.signal(Signal::TERM);
    let (status, stdout, stderr) = backup.end().await;
    assert_eq!((status.code(), stdout.as_str()), (Some(1), ""));
    assert_eq!(stderr, "waypost: stopped by a signal before completion\n");
    assert_eq!(places.names(), [""; 0]);
}

/// A store whose server has ended, and its image, which is of when an instance was there.
async fn store_and_image(places: &Places) -> (String, String) {
    let (store, image) = (places.text("store"), places.text("image"));
    let server = Server::start_on(Path::new(&store)).await;
    let a = server.register(orders("a").metadata("key", "value")).await;
    assert_eq!(server.run(&["backup", &image]).await.code, 0);
    soon("the deregistration", a.deregister()).await.unwrap();
    server.stop().await;
    (store, image)
}

#[tokio::test]
async fn incomplete_backup_is_not_restored() {
    let places = Places::new();
    let (_, image) = store_and_image(&places).await;
    let whole = fs::read(&image).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let mut longer = whole.clone();
    longer.push(0);
    let bad = places.text("bad");
    let target = places.text("target");
    let restore = ["restore", bad.as_str(), "--data-dir", target.as_str()];
    offline(&restore).await.refused("bad: No such file or directory");
    let foreign = "not a Waypost backup";
    for (bytes, reason) in [
        (&whole[..whole.len() - 1], "bad: the backup is damaged: it is truncated"),
        (&whole[..whole.len() / 2], "bad: the backup is damaged: it is truncated"),
        (&flipped, "bad: the backup is damaged: "),
        (&longer, "bad: the backup is damaged: data follows its end"),
        (&[], foreign),
        (b"something else entirely", foreign),
    ] {
        fs::write(&bad, bytes).unwrap();
        offline(&restore).await.refused(reason);
        assert!(!fs::exists(&target).unwrap(), "nothing was begun");
    }
    let done = offline(&["restore", &image, "--data-dir", &target]).await;
    let told = format!("restored 1 instances at revision 1 to {target}, history ");
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    assert!(done.stdout.starts_with(&told), "{}", done.stdout);
    assert_eq!(names(Path::new(&target)), ["lock", "registry.redb"]);
}

#[tokio::test]
async fn backup_is_not_restored_over_existing_files() {
    let places = Places::new();
    let (store, image) = store_and_image(&places).await;
    let file = Path::new(&store).join("registry.redb");
    let before = fs::read(&file).unwrap();
    let restore = ["restore", image.as_str(), "--data-dir", store.as_str()];
    offline(&restore).await.refused("store: it is not empty");
    let mut by_environment = program(["restore", image.as_str()]);
    by_environment.env("WAYPOST_DATA_DIR", &store);
    finish(&mut by_environment).await.refused("store: it is not empty");
    assert!(before == fs::read(&file).unwrap(), "the store is as it was");
    let other = places.path("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("notes"), "").unwrap();
    let restore = ["restore", image.as_str(), "--data-dir", other.to_str().unwrap()];
    offline(&restore).await.refused("other: it is not empty");
    assert_eq!(names(&other), ["notes"]);
    // A file is no place either.
    let restore = ["restore", image.as_str(), "--data-dir", image.as_str()];
    offline(&restore).await.refused("image: ");
}

#[tokio::test]
async fn store_is_checked() {
    let places = Places::new();
    let (store, _) = store_and_image(&places).await;
    let check = ["check", "--data-dir", store.as_str()];
    let table = offline(&check).await;
    assert_eq!((table.code, table.stderr.as_str()), (0, ""));
    let lines: Vec<_> = table.stdout.lines().map(words).collect();
    let kept = told(&check).await;
    let history = kept["history_id"].as_str().unwrap();
    let expected = [["history", history], ["revision", "2"], ["instances", "0"], ["changes", "2"]];
    assert_eq!(lines, expected);
    assert_eq!((&kept["revision"], &kept["instances"]), (&2.into(), &0.into()));
    assert_eq!(kept["changes"], 2);
    let server = Server::start_on(Path::new(&store)).await;
    assert_eq!(server.json(&["status"]).await["history_id"], history);
}

#[tokio::test]
async fn store_that_cannot_be_checked_is_named() {
    let places = Places::new();
    let (store, _) = store_and_image(&places).await;
    let check = ["check", "--data-dir", store.as_str()];
    let server = Server::start_on(Path::new(&store)).await;
    offline(&check).await.refused("store: another server uses it");
    server.stop().await;

    let nowhere = places.text("nowhere");
    let reason = "nowhere: no such directory";
    offline(&["check", "--data-dir", &nowhere]).await.refused(reason);
    assert!(!fs::exists(&nowhere).unwrap());
    fs::create_dir(&nowhere).unwrap();
    let reason = "nowhere/registry.redb: no store exists";
    offline(&["check", "--data-dir", &nowhere]).await.refused(reason);
    assert_eq!(names(Path::new(&nowhere)), [""; 0], "not even a lock is left there");

    let file = Path::new(&store).join("registry.redb");
    let whole = fs::read(&file).unwrap();
    for bytes in [&whole[..0], &whole[..whole.len() / 2], &[7; 8192]] {
        fs::write(&file, bytes).unwrap();
        let refused = offline(&check).await;
        refused.refused("store/registry.redb: it is damaged: restore a backup");
        assert!(bytes == fs::read(&file).unwrap(), "it is left to those who may mend it");
    }
}
