//! The client through outages: of one registry of several, of all of them, and of its own process.
//! Waits for conditions, never for time.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use tempfile::TempDir;
use waypost_client::{
    Builder, Client, Freshness, NoInstance, PickContext, Registration, RegistryState, Service,
};

use crate::support::{Fake, Network, Process};

fn builder(network: &Network, registries: &[&str]) -> Builder {
    let network = network.clone();
    let connector = tower::service_fn(move |uri| network.clone().connect(uri));
    let builder = Client::builder()
        .connector(connector)
        .backoff(Duration::from_millis(10), Duration::from_millis(100))
        .failback_interval(Duration::from_millis(30));
    let registries = registries.iter().map(|name| format!("http://{name}:7510"));
    registries.fold(builder, Builder::registry)
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it takes too long")
}

/// Waits for a condition without a notification.
async fn until(mut holds: impl FnMut() -> bool) {
    soon(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Waits until the view has exactly these instances.
async fn until_seen(service: &Service, ids: &[&str]) {
    until(|| {
        let snapshot = service.snapshot();
        let is = |ids: &[&str]| {
            let snapshot = snapshot.as_ref()?;
            Some(snapshot.instances().map(|instance| &*instance.id).eq(ids.iter().copied()))
        };
        is(ids).unwrap_or(false)
    })
    .await;
}

/// Registries with the same history, each under its name.
fn registries(network: &Network, names: &[&str]) -> Vec<(Fake, Option<Process>)> {
    let registry = |name: &&str| {
        let fake = Fake::new();
        let process = fake.serve(network, name);
        (fake, Some(process))
    };
    names.iter().map(registry).collect()
}

/// The registry that most watch.
fn busiest(registries: &[(Fake, Option<Process>)]) -> usize {
    let watches = registries.iter().map(|(fake, _)| fake.watches());
    watches.enumerate().max_by_key(|(_, watches)| *watches).unwrap().0
}

#[tokio::test]
async fn watches_fail_back_once_the_first_registry_is_ready() {
    let network = Network::default();
    let names = ["first", "second"];
    let mut registries = registries(&network, &names);
    let client = builder(&network, &names).build().unwrap();
    let orders = client.service("orders");
    soon(orders.ready()).await.unwrap();
    let home = busiest(&registries);
    let (first, second) = (registries[home].0.clone(), registries[1 - home].0.clone());
    first.alter(|state| state.starts = true);
    registries[home].1 = None;
    until(|| second.watches() == 1).await;

    registries[home].1 = Some(first.serve(&network, names[home]));
    let tried = first.state().heartbeats;
    first.until(|state| state.heartbeats > tried + 1).await;
    assert_eq!((first.watches(), second.watches()), (0, 1), "it is not ready");
    first.alter(|state| state.starts = false);
    until(|| (first.watches(), second.watches()) == (1, 0)).await;
    first.place("orders", "a", "a");
    until_seen(&orders, &["a"]).await;
}

#[tokio::test]
async fn heartbeats_fail_back() {
    let network = Network::default();
    let names = ["first", "second"];
    let mut registries = registries(&network, &names);
    let client = builder(&network, &names).build().unwrap();
    let registration = Registration::new("orders", "10.0.0.1", 80).id("a");
    let _registered = soon(client.register(registration)).await.unwrap();
    let streams = |fake: &Fake| fake.state().streams_open;
    let registered = |fake: &Fake| fake.state().registrations == 1;
    let home = registries.iter().position(|(fake, _)| registered(fake)).unwrap();
    let (first, second) = (registries[home].0.clone(), registries[1 - home].0.clone());
    registries[home].1 = None;
    second.until(|state| state.heartbeats > 1).await;

    registries[home].1 = Some(first.serve(&network, names[home]));
    let before = first.state().heartbeats;
    first.until(|state| state.streams_open == 1 && state.heartbeats > before + 3).await;
    assert_eq!(streams(&second), 1, "the one before stays until all have renewed elsewhere");
    assert_eq!(second.state().registrations, 1);
}

#[tokio::test]
async fn failback_to_an_empty_registry_keeps_the_view() {
    let network = Network::default();
    let names = ["first", "second"];
    let mut registries = registries(&network, &names);
    registries.iter().for_each(|(fake, _)| fake.place("orders", "a", "a"));
    let client = builder(&network, &names).build().unwrap();
    let orders = client.service("orders");
    soon(orders.ready()).await.unwrap();
    let home = busiest(&registries);
    registries[home].1 = None;
    until(|| registries[1 - home].0.watches() == 1).await;

    let empty = Fake::new();
    let _empty = empty.serve(&network, names[home]);
    let history = empty.history();
    until(|| orders.snapshot().unwrap().cursor().history_id == history).await;
    until_seen(&orders, &["a"]).await;
}

#[tokio::test]
async fn clients_of_a_dead_registry_spread_over_the_others() {
    let network = Network::default();
    let names = ["first", "second", "third"];
    let mut registries = registries(&network, &names);
    let client = |_| builder(&network, &names).failback_interval(Duration::from_secs(60)).build();
    let clients: Vec<Client> = (0..60).map(|index| client(index).unwrap()).collect();
    let services: Vec<Service> = clients.iter().map(|client| client.service("orders")).collect();
    for service in &services {
        soon(service.ready()).await.unwrap();
    }
    let watches = |registries: &[(Fake, Option<Process>)]| -> Vec<usize> {
        registries.iter().map(|(fake, _)| fake.watches()).collect()
    };
    let before = watches(&registries);
    let dead = busiest(&registries);
    registries[dead].1 = None;
    until(|| watches(&registries).iter().sum::<usize>() == clients.len()).await;
    // Twenty at least: that chance leads all of them to the same one is one in a million.
    let after = watches(&registries);
    let others = (0..3).filter(|index| *index != dead);
    others.for_each(|other| assert!(after[other] > before[other], "{before:?} {after:?}"));
}

#[tokio::test]
async fn registry_state_shows_an_outage() {
    let (network, fake) = (Network::default(), Fake::new());
    let process = fake.serve(&network, "registry");
    let client = builder(&network, &["registry"]).build().unwrap();
    let mut link = client.registry_state();
    assert_eq!(*link.borrow(), RegistryState::Idle);
    let orders = client.service("orders");
    let connected = RegistryState::Connected { peer: "registry:7510".into() };
    soon(link.wait_for(|state| *state == connected)).await.unwrap();
    drop(process);
    let away = |state: &RegistryState| matches!(state, RegistryState::Unreachable { .. });
    let since = soon(link.wait_for(away)).await.unwrap().clone();
    soon(network.until_asked(3)).await;
    assert_eq!(*link.borrow(), since, "it is one outage");
    let _process = fake.serve(&network, "registry");
    soon(link.wait_for(|state| *state == connected)).await.unwrap();
    drop((orders, client));
    soon(link.wait_for(|_| false)).await.unwrap_err();
}

#[tokio::test]
async fn heartbeats_alone_end_an_outage() {
    let (network, fake) = (Network::default(), Fake::new());
    let process = fake.serve(&network, "registry");
    let client = builder(&network, &["registry"]).build().unwrap();
    let mut link = client.registry_state();
    let registration = Registration::new("orders", "10.0.0.1", 80);
    let registered = soon(client.register(registration)).await.unwrap();
    drop(process);
    let away = |state: &RegistryState| matches!(state, RegistryState::Unreachable { .. });
    soon(link.wait_for(away)).await.unwrap();
    let _process = fake.serve(&network, "registry");
    let connected = |state: &RegistryState| matches!(state, RegistryState::Connected { .. });
    soon(link.wait_for(connected)).await.unwrap();
    drop(registered);
}

#[tokio::test]
async fn view_is_stale_between_two_streams() {
    let (network, fake) = (Network::default(), Fake::new());
    fake.place("orders", "a", "a");
    let process = fake.serve(&network, "registry");
    let client = builder(&network, &["registry"]).build().unwrap();
    let orders = client.service("orders");
    let mut freshness = orders.freshness();
    assert!(freshness.borrow().stale_since().is_some(), "nothing is known yet");
    let live = |freshness: &Freshness| *freshness == Freshness::Live;
    soon(freshness.wait_for(live)).await.unwrap();
    until_seen(&orders, &["a"]).await;
    drop(process);
    let stale = |freshness: &Freshness| freshness.stale_since().is_some();
    let since = *soon(freshness.wait_for(stale)).await.unwrap();
    soon(network.until_asked(3)).await;
    assert_eq!(*freshness.borrow(), since, "however often it is tried");
    until_seen(&orders, &["a"]).await;
    let _process = fake.serve(&network, "registry");
    soon(freshness.wait_for(live)).await.unwrap();
}

/// A process that knew these orders at revision 2 of history `h`, and is gone; its registry, too.
async fn known(network: &Network, views: &TempDir, ids: &[&str]) -> Fake {
    let fake = Fake::new();
    ids.iter().for_each(|id| fake.place("orders", id, id));
    let _process = fake.serve(network, "registry");
    let client = builder(network, &["registry"]).view_dir(views.path()).build().unwrap();
    let orders = client.service("orders");
    until_seen(&orders, ids).await;
    until(|| kept(views).is_some()).await;
    fake
}

/// The file that keeps the view.
fn kept(views: &TempDir) -> Option<PathBuf> {
    let files = fs::read_dir(views.path()).unwrap().map(|file| file.unwrap().path());
    files.into_iter().find(|file| file.display().to_string().contains("orders"))
}

#[tokio::test]
async fn client_starts_from_its_stored_view_without_a_registry() {
    let (network, views) = (Network::default(), TempDir::new().unwrap());
    let fake = known(&network, &views, &["a", "b"]).await;
    let client = builder(&network, &["registry"]).view_dir(views.path()).build().unwrap();
    let orders = client.service("orders");
    assert_eq!(
        orders.pick(&PickContext::new()).unwrap_err(),
        NoInstance::NotReady,
        "nobody waits for the disk"
    );
    soon(orders.ready()).await.unwrap();
    until_seen(&orders, &["a", "b"]).await;
    assert!(orders.pick(&PickContext::new()).is_ok());
    assert!(orders.freshness().borrow().stale_since().is_some());

    // The changes meanwhile are exact.
    fake.displace("a");
    fake.place("orders", "c", "c");
    let _process = fake.serve(&network, "registry");
    until_seen(&orders, &["b", "c"]).await;
    let live = |freshness: &Freshness| *freshness == Freshness::Live;
    soon(orders.freshness().wait_for(live)).await.unwrap();
    assert_eq!(orders.snapshot().unwrap().missing().len(), 0);
}

#[tokio::test]
async fn stored_view_is_held_over_into_another_history() {
    let (network, views) = (Network::default(), TempDir::new().unwrap());
    known(&network, &views, &["a", "b"]).await;
    let fake = Fake::new();
    fake.place("orders", "b", "b");
    let _process = fake.serve(&network, "registry");
    let client = builder(&network, &["registry"]).view_dir(views.path()).build().unwrap();
    let orders = client.service("orders");
    let history = fake.history();
    until(|| orders.snapshot().is_some_and(|view| view.cursor().history_id == history)).await;
    until_seen(&orders, &["a", "b"]).await;
    assert!(orders.snapshot().unwrap().missing().map(|(instance, _)| &*instance.id).eq(["a"]));
}

/// The log lines.
#[derive(Clone, Default)]
struct Logs(Arc<Mutex<Vec<u8>>>);

impl io::Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Logs {
    /// Logs of this thread, which the client works in, go here.
    fn here() -> (Self, tracing::subscriber::DefaultGuard) {
        let logs = Self::default();
        let writer = logs.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false);
        let subscriber = subscriber.with_writer(move || writer.clone()).finish();
        (logs, tracing::subscriber::set_default(subscriber))
    }

    /// The lines with all of these parts.
    fn with(&self, parts: &[&str]) -> usize {
        let logs = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        logs.lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }
}

#[tokio::test]
async fn damaged_view_file_is_reported_and_replaced() {
    let (network, views) = (Network::default(), TempDir::new().unwrap());
    let fake = known(&network, &views, &["a"]).await;
    let file = kept(&views).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, &bytes).unwrap();

    let (logs, _guard) = Logs::here();
    let client = builder(&network, &["registry"]).view_dir(views.path()).build().unwrap();
    let orders = client.service("orders");
    soon(network.until_asked(2)).await;
    assert!(orders.snapshot().is_none());
    let path = file.display().to_string();
    assert_eq!(logs.with(&["WARN", "service=\"orders\"", &path, "checksum"]), 1);
    let _process = fake.serve(&network, "registry");
    until_seen(&orders, &["a"]).await;
    until(|| fs::read(&file).unwrap() != bytes).await;
}

#[tokio::test]
async fn unwritable_view_directory_disturbs_no_view() {
    let (network, views) = (Network::default(), TempDir::new().unwrap());
    let (logs, _guard) = Logs::here();
    let path = views.path().join("a file");
    fs::write(&path, "").unwrap();
    let fake = Fake::new();
    let _process = fake.serve(&network, "registry");
    let client = builder(&network, &["registry"]).view_dir(&path).build().unwrap();
    let (orders, others) = (client.service("orders"), client.service("others"));
    until(|| logs.with(&["WARN", "can't store views"]) > 0).await;
    fake.place("orders", "a", "a");
    until_seen(&orders, &["a"]).await;
    fs::remove_file(&path).unwrap();
    until(|| logs.with(&["INFO", "storing views again"]) > 0).await;
    assert_eq!(logs.with(&["WARN", "can't store views"]), 1, "for all services");
    drop(others);
}
