//! The client against a registry that is killed, emptied and moved, and against replicas that come
//! and go. Waits for conditions, never for time.

use std::{
    collections::BTreeMap,
    sync::LazyLock,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::{Code, Request, Response, Status, service::LayerExt};
use waypost_client::{
    BalancedChannel, Client, DeregisterError, InFlight, Instance, NoInstance, PickContext, Policy,
    ReadyError, RegisterError, Registered, Registration, RegistrationState, Service, Update,
    UpdateError, proto,
};
use waypost_testing::greeter::{
    GreetRequest, GreetResponse,
    greeter_client::GreeterClient,
    greeter_server::{Greeter, GreeterServer},
};

use crate::support::{Fake, Network, Process};

/// A client of the registries with these names.
fn client(network: &Network, registries: &[&str]) -> Client {
    let network = network.clone();
    let connector = tower::service_fn(move |uri| network.clone().connect(uri));
    let builder = Client::builder()
        .connector(connector)
        .backoff(Duration::from_millis(10), Duration::from_millis(100));
    let registries = registries.iter().map(|name| format!("http://{name}:7510"));
    registries.fold(builder, waypost_client::Builder::registry).build().unwrap()
}

fn an_order() -> Registration {
    Registration::new("orders", "10.0.0.1", 80).id("a")
}

fn nameless() -> Registration {
    Registration::new("orders", "10.0.0.1", 80)
}

/// A registry, where it is served, and a client of it.
fn registry() -> (Network, Fake, Process, Client) {
    let (network, fake) = (Network::default(), Fake::new());
    let process = fake.serve(&network, "registry");
    let client = client(&network, &["registry"]);
    (network, fake, process, client)
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it takes too long")
}

/// Waits until the view has exactly these instances.
async fn until_seen(service: &Service, ids: &[&str]) {
    let mut changes = service.changes();
    let seen = async {
        while let Some(snapshot) = changes.next().await {
            if snapshot.instances().map(|instance| &*instance.id).eq(ids.iter().copied()) {
                return;
            }
        }
        panic!("the watch has ended");
    };
    soon(seen).await;
}

async fn until_registered_anew(registered: &Registered, old: u64) {
    let mut state = registered.state();
    let anew = |state: &RegistrationState| matches!(state, RegistrationState::Registered { lease_id } if *lease_id != old);
    soon(state.wait_for(anew)).await.unwrap();
}

struct Replica(String);

#[tonic::async_trait]
impl Greeter for Replica {
    async fn greet(
        &self,
        request: Request<GreetRequest>,
    ) -> Result<Response<GreetResponse>, Status> {
        let name = request.into_inner().name;
        if name == "nobody" || self.0 == "silent" {
            std::future::pending::<()>().await;
        }
        if self.0 == "failing" {
            return Err(Status::unavailable("out of order"));
        }
        let greeting = format!("hello {name}");
        Ok(Response::new(GreetResponse { greeting, instance: self.0.clone() }))
    }
}

fn replica(network: &Network, id: &str) -> Process {
    let service = GreeterServer::new(Replica(id.into()));
    network.start(id, tonic::transport::Server::builder().add_service(service))
}

/// A replica that `fake` knows of.
fn placed(network: &Network, fake: &Fake, id: &str) -> Process {
    fake.place("greeter", id, id);
    replica(network, id)
}

async fn greet(channel: &BalancedChannel) -> Result<String, Status> {
    let request = GreetRequest { name: "you".into() };
    let answer = soon(GreeterClient::new(channel.clone()).greet(request)).await?;
    Ok(answer.into_inner().instance)
}

async fn counts(channel: &BalancedChannel, calls: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..calls {
        *counts.entry(greet(channel).await.unwrap()).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn an_instance_is_registered_kept_alive_and_deregistered() {
    let (_network, fake, _process, client) = registry();
    let registration = an_order().zone("a").metadata("k", "v");
    let registered = client.register(registration).await.unwrap();
    let instance = registered.instance();
    assert_eq!((instance.id.as_str(), instance.zone.as_str()), ("a", "a"));
    let lease_id = registered.lease_id().unwrap();
    fake.until(|state| state.heartbeats >= 3).await;
    assert_eq!(*registered.state().borrow(), RegistrationState::Registered { lease_id });
    soon(registered.deregister()).await.unwrap();
    assert!(fake.state().instances.is_empty());
}

#[tokio::test]
async fn dropping_the_guard_deregisters() {
    let (_network, fake, _process, client) = registry();
    let registered = client.register(an_order()).await.unwrap();
    drop(registered);
    fake.until(|state| state.instances.is_empty()).await;
}

#[tokio::test]
async fn a_refused_registration_names_the_fields() {
    let (_network, _fake, _process, client) = registry();
    let refused = client.register(Registration::new("", "10.0.0.1", 80)).await;
    let Err(RegisterError::Invalid(refusal)) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.violations[0].field, "instance.service");
}

#[tokio::test]
async fn a_registry_without_memory_is_told_again_with_what_was_set() {
    let (network, before) = (Network::default(), Fake::new());
    let process = before.serve(&network, "registry");
    let client = client(&network, &["registry"]);
    let mut registered = client.register(an_order()).await.unwrap();
    registered.set_weight(7).await.unwrap();
    registered.set_metadata([("k", "v")]).await.unwrap();
    drop(process);

    let after = Fake::new();
    let _process = after.serve(&network, "registry");
    after.until(|state| state.instances.contains_key("a")).await;
    let instance = after.state().instances["a"].clone();
    assert_eq!((instance.weight, instance.metadata["k"].as_str()), (Some(7), "v"));
    soon(registered.deregister()).await.unwrap();
    assert!(after.state().instances.is_empty());
}

#[tokio::test]
async fn a_lost_lease_is_noticed_by_an_update() {
    let (_network, fake, _process, client) = registry();
    let mut registered = client.register(an_order()).await.unwrap();
    let expired = registered.lease_id();
    fake.expire_all();
    soon(registered.set_status(proto::Status::Draining)).await.unwrap();
    assert_ne!(registered.lease_id(), expired);
    assert_eq!(fake.state().instances["a"].status(), proto::Status::Draining);
    assert_eq!(registered.instance().status(), proto::Status::Draining);
}

#[tokio::test]
async fn a_refused_update_is_not_registered_later() {
    let (_network, fake, _process, client) = registry();
    let mut registered = client.register(an_order()).await.unwrap();
    let refused = registered.set_weight(u32::MAX).await;
    assert!(matches!(refused, Err(UpdateError::Invalid(_))), "{refused:?}");
    let expired = registered.lease_id().unwrap();
    fake.expire_all();
    until_registered_anew(&registered, expired).await;
    assert_eq!(fake.state().instances["a"].weight, Some(100));
}

#[tokio::test]
async fn registering_waits_for_a_registry() {
    let (network, fake) = (Network::default(), Fake::new());
    let client = client(&network, &["registry"]);
    let registering = tokio::spawn(async move { client.register(an_order()).await });
    // It has failed to connect by then; a late start of the task would do no harm.
    tokio::task::yield_now().await;
    let _process = fake.serve(&network, "registry");
    let registered = soon(registering).await.unwrap().unwrap();
    assert_eq!(fake.state().instances.len(), 1);
    drop(registered);
}

#[tokio::test]
async fn started_without_a_registry_it_is_registered_when_one_comes() {
    let (network, fake) = (Network::default(), Fake::new());
    let client = client(&network, &["registry"]);
    let mut registered = client.register_in_background(an_order());
    assert_eq!(*registered.state().borrow(), RegistrationState::Pending);
    assert_eq!((registered.lease_id(), &*registered.instance().id), (None, "a"));
    soon(network.until_asked(2)).await;
    let updating = registered.set_weight(7);
    let starting = async {
        soon(network.until_asked(2)).await;
        fake.serve(&network, "registry")
    };
    let (updated, _process) = tokio::join!(updating, starting);
    updated.unwrap();
    soon(registered.wait_registered()).await.unwrap();
    assert!(registered.lease_id().is_some());
    assert_eq!(fake.state().instances["a"].weight, Some(7));
    soon(registered.deregister()).await.unwrap();
    assert!(fake.state().instances.is_empty());
}

#[tokio::test]
async fn a_refused_start_is_shown_and_tried_again_when_it_changes() {
    let (_network, fake, _process, client) = registry();
    fake.alter(|state| state.refuses = Some("full"));
    let mut registered = client.register_in_background(an_order());
    let refused = soon(registered.wait_registered()).await;
    assert!(matches!(refused, Err(RegisterError::LimitReached(_))), "{refused:?}");
    let shown = registered.state().borrow().clone();
    assert!(matches!(shown, RegistrationState::Refused(_)), "{shown:?}");
    fake.alter(|state| state.refuses = None);
    soon(registered.set_weight(7)).await.unwrap();
    assert_eq!(fake.state().instances["a"].weight, Some(7));
    drop(registered);
}

#[tokio::test]
async fn what_was_started_and_never_registered_leaves_at_once() {
    let client = client(&Network::default(), &["registry"]);
    let registered = client.register_in_background(an_order());
    let mut state = registered.state();
    soon(registered.deregister()).await.unwrap();
    assert_eq!(*state.borrow_and_update(), RegistrationState::Deregistered);
}

fn following(ready: &watch::Sender<bool>) -> Registration<WatchStream<bool>> {
    an_order().ready_when(WatchStream::new(ready.subscribe()))
}

/// Waits until the registry holds it so.
async fn until_held(fake: &Fake, status: proto::Status) {
    fake.until(|state| state.instances.get("a").is_some_and(|a| a.status() == status)).await;
}

#[tokio::test]
async fn an_instance_follows_what_it_is_told_of_its_readiness() {
    let (_network, fake, _process, client) = registry();
    let ready = watch::Sender::new(false);
    let registered = soon(client.register(following(&ready))).await.unwrap();
    fake.until(|state| state.heartbeats > 2).await;
    assert_eq!(fake.state().instances["a"].status(), proto::Status::Starting);
    for (word, status) in [(true, proto::Status::Up), (false, proto::Status::Down)] {
        ready.send_replace(word);
        until_held(&fake, status).await;
    }
    ready.send_replace(true);
    until_held(&fake, proto::Status::Up).await;
    // The last word stays.
    drop(ready);
    fake.expire_all();
    until_held(&fake, proto::Status::Up).await;
    let told = [proto::Status::Up, proto::Status::Down, proto::Status::Up];
    assert_eq!((fake.state().statuses, fake.state().registrations), (told.into(), 2));
    soon(registered.deregister()).await.unwrap();
}

#[tokio::test]
async fn readiness_that_changes_during_an_outage_is_told_as_it_is_in_the_end() {
    let (network, fake, process, client) = registry();
    let ready = watch::Sender::new(false);
    let registered = soon(client.register(following(&ready))).await.unwrap();
    ready.send_replace(true);
    until_held(&fake, proto::Status::Up).await;
    drop(process);
    for _ in 0..10 {
        ready.send_replace(false);
        soon(network.until_asked(1)).await;
        ready.send_replace(true);
        soon(network.until_asked(1)).await;
    }
    ready.send_replace(false);
    let _process = fake.serve(&network, "registry");
    until_held(&fake, proto::Status::Down).await;
    assert_eq!(fake.state().statuses, [proto::Status::Up, proto::Status::Down]);
    drop(registered);
}

#[tokio::test]
async fn what_registers_again_registers_with_its_present_readiness() {
    let (network, before) = (Network::default(), Fake::new());
    let process = before.serve(&network, "registry");
    let client = client(&network, &["registry"]);
    let ready = watch::Sender::new(true);
    let registered = soon(client.register(following(&ready))).await.unwrap();
    until_held(&before, proto::Status::Up).await;
    drop(process);
    ready.send_replace(false);
    soon(network.until_asked(3)).await;
    let after = Fake::new();
    let _process = after.serve(&network, "registry");
    until_held(&after, proto::Status::Down).await;
    let log = after.state().log;
    assert!(log.iter().all(|instance| instance.status() != proto::Status::Up), "{log:?}");
    drop(registered);
}

#[tokio::test]
async fn draining_waits_for_calls_in_flight() {
    let (_network, fake, _process, client) = registry();
    let registered = soon(client.register(an_order())).await.unwrap();
    let in_flight = InFlight::new();
    let call = in_flight.begin();
    let patience = Duration::from_secs(15);
    let ending = async {
        until_held(&fake, proto::Status::Draining).await;
        // Longer than callers are given to see it.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert!(fake.state().instances.contains_key("a"), "it left before its call had ended");
        drop(call);
    };
    let began = Instant::now();
    let (drained, ()) = tokio::join!(registered.drain_calls(&in_flight, patience), ending);
    assert!(drained.announced && drained.deregistered.is_ok(), "{drained:?}");
    assert_eq!(drained.unfinished, 0);
    assert!(began.elapsed() < patience);
    assert!(fake.state().instances.is_empty());
}

#[tokio::test]
async fn draining_gives_callers_time_to_see_it() {
    let (_network, fake, _process, client) = registry();
    let registered = soon(client.register(an_order())).await.unwrap();
    let began = Instant::now();
    let drained = soon(registered.drain(Duration::from_secs(15))).await;
    assert!(drained.deregistered.is_ok(), "{drained:?}");
    assert!((Duration::from_secs(1)..Duration::from_secs(10)).contains(&began.elapsed()));
    assert!(fake.state().instances.is_empty());
}

#[tokio::test]
async fn draining_takes_no_longer_than_its_grace() {
    let (_network, fake, _process, client) = registry();
    let registered = soon(client.register(an_order())).await.unwrap();
    let in_flight = InFlight::new();
    let _call = in_flight.begin();
    let drained = soon(registered.drain_calls(&in_flight, Duration::from_millis(1_500))).await;
    assert_eq!((drained.announced, drained.unfinished), (true, 1));
    assert!(fake.state().instances.is_empty());
}

#[tokio::test]
async fn draining_does_not_wait_for_a_registry_that_is_away() {
    let (_network, _fake, process, client) = registry();
    let registered = soon(client.register(an_order())).await.unwrap();
    drop(process);
    let drained = soon(registered.drain(Duration::from_millis(300))).await;
    assert!(!drained.announced);
    assert!(matches!(drained.deregistered, Err(DeregisterError::Unreachable(_))), "{drained:?}");
}

#[tokio::test]
async fn what_was_never_registered_is_drained_at_once() {
    let client = client(&Network::default(), &["registry"]);
    let drained = soon(client.register_in_background(an_order()).drain(Duration::MAX)).await;
    assert!(!drained.announced && drained.deregistered.is_ok(), "{drained:?}");
}

#[tokio::test]
async fn what_drains_follows_its_readiness_no_more() {
    let (_network, fake, _process, client) = registry();
    let ready = watch::Sender::new(true);
    let registered = soon(client.register(following(&ready))).await.unwrap();
    until_held(&fake, proto::Status::Up).await;
    let turning = async {
        until_held(&fake, proto::Status::Draining).await;
        ready.send_replace(false);
    };
    let grace = Duration::from_secs(2);
    let (drained, ()) = tokio::join!(registered.drain(grace), turning);
    assert!(drained.announced && drained.deregistered.is_ok(), "{drained:?}");
    assert_eq!(fake.state().statuses.last(), Some(&proto::Status::Draining));
}

#[tokio::test]
async fn a_replica_that_has_drained_can_be_killed_without_a_failed_call() {
    let (network, fake, _process, client) = registry();
    let in_flight = InFlight::new();
    let greeter = in_flight.named_layer(GreeterServer::new(Replica("a".into())));
    let a = network.start("a", tonic::transport::Server::builder().add_service(greeter));
    let registration = Registration::new("greeter", "a", 80).id("a");
    let registered = soon(client.register(registration)).await.unwrap();
    let _b = placed(&network, &fake, "b");
    let channel = client.channel("greeter");
    assert_eq!(counts(&channel, 100).await.len(), 2);
    let leaving = async {
        let drained = soon(registered.drain_calls(&in_flight, Duration::from_secs(10))).await;
        assert_eq!((drained.announced, drained.unfinished), (true, 0));
        drop(a);
    };
    let calls = async {
        let mut failed = 0;
        while in_flight.count() > 0 || fake.state().instances.contains_key("a") {
            failed += failures(&channel, 100).await;
        }
        failed + failures(&channel, 500).await
    };
    let (failed, ()) = tokio::join!(calls, leaving);
    assert_eq!(failed, 0);
}

fn many(client: &Client, count: usize) -> Vec<Registered> {
    let registration = |id: usize| Registration::new("orders", "10.0.0.1", 80).id(id.to_string());
    (0..count).map(|id| client.register_in_background(registration(id))).collect()
}

/// Waits until each of them stands so.
async fn until_all(registered: &[Registered], wanted: fn(&RegistrationState) -> bool) {
    for registered in registered {
        soon(registered.state().wait_for(wanted)).await.unwrap();
    }
}

fn is_registered(state: &RegistrationState) -> bool {
    matches!(state, RegistrationState::Registered { .. })
}

fn is_retrying(state: &RegistrationState) -> bool {
    matches!(state, RegistrationState::Retrying { .. })
}

#[tokio::test]
async fn a_thousand_registrations_share_one_stream_and_come_back_over_one() {
    let (network, fake, process, client) = registry();
    // None of them has a heartbeat due after the first: they learn of the end from the stream alone.
    fake.alter(|state| state.interval = 60);
    let registered = many(&client, 1_000);
    until_all(&registered, is_registered).await;
    fake.until(|state| state.renewed.len() == 1_000).await;
    let before = fake.state();
    assert_eq!((before.streams, before.instances.len()), (1, 1_000));
    drop(process);
    until_all(&registered, is_retrying).await;
    soon(network.until_asked(10)).await;
    let _process = fake.serve(&network, "registry");
    until_all(&registered, is_registered).await;
    let state = fake.state();
    assert_eq!((state.streams, state.registrations), (2, before.registrations));
    // All that waited went out together.
    let heartbeats = state.heartbeats - before.heartbeats;
    assert!(heartbeats < 500, "{heartbeats} heartbeats");
}

#[tokio::test]
async fn a_missing_answer_breaks_the_stream_for_all_that_live_on_it() {
    let (_network, fake, _process, client) = registry();
    fake.alter(|state| state.interval = 60);
    let idle = many(&client, 3);
    until_all(&idle, is_registered).await;
    fake.alter(|state| state.interval = 1);
    let _busy = soon(client.register(an_order())).await.unwrap();
    fake.until(|state| state.renewed.len() == 4).await;
    fake.alter(|state| state.silent = true);
    until_all(&idle, is_retrying).await;
    fake.alter(|state| state.silent = false);
    until_all(&idle, is_registered).await;
    assert_eq!(fake.state().registrations, 4);
}

#[tokio::test]
async fn the_stream_lasts_until_the_last_one_has_left() {
    let (_network, fake, _process, client) = registry();
    fake.alter(|state| state.interval = 60);
    let registered = many(&client, 3);
    fake.until(|state| state.renewed.len() == 3).await;
    for registered in registered {
        soon(registered.deregister()).await.unwrap();
    }
    assert_eq!(fake.state().streams_at_leave, [1, 1, 1]);
    fake.until(|state| state.streams_open == 0).await;
    // The next one opens another.
    let _registered = soon(client.register(an_order())).await.unwrap();
    fake.until(|state| state.renewed.len() == 4).await;
    assert_eq!(fake.state().streams, 2);
}

#[test]
fn a_stream_that_ends_with_its_runtime_ends_no_registration_of_another() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_network, fake, _process, client) = registry();
    let (first, second) = (runtime(), runtime());
    let other = first.block_on(async {
        fake.alter(|state| state.interval = 1);
        let other = client.register(nameless()).await.unwrap();
        fake.until(|state| state.renewed.len() == 1).await;
        other
    });
    // Nothing happens in the first one meanwhile, and then it is gone.
    second.block_on(async {
        let _registered = soon(client.register(an_order())).await.unwrap();
        fake.until(|state| state.streams > 1 && state.renewed.len() == 2).await;
        first.shutdown_background();
        let heartbeats = fake.state().heartbeats;
        fake.until(|state| state.heartbeats > heartbeats + 1).await;
    });
    drop(other);
}

#[tokio::test]
async fn another_address_takes_over() {
    let (network, fake) = (Network::default(), Fake::new());
    let first = fake.serve(&network, "first");
    let _second = fake.serve(&network, "second");
    let client = client(&network, &["first", "second"]);
    let orders = client.service("orders");
    orders.ready().await.unwrap();
    let registered = client.register(an_order()).await.unwrap();
    until_seen(&orders, &["a"]).await;
    drop(first);
    let heartbeats = fake.state().heartbeats;
    fake.until(|state| state.heartbeats > heartbeats + 2).await;
    fake.place("orders", "other", "other");
    until_seen(&orders, &["a", "other"]).await;
    assert_eq!(fake.state().registrations, 1, "the lease stayed active");
    drop(registered);
}

#[tokio::test]
async fn the_view_follows_and_outlives_the_registry() {
    let (network, before) = (Network::default(), Fake::new());
    let process = before.serve(&network, "registry");
    let client = client(&network, &["registry"]);
    let orders = client.service("orders");
    assert_eq!(orders.pick(&PickContext::new()).unwrap_err(), NoInstance::NotReady);
    soon(orders.ready()).await.unwrap();
    assert_eq!(orders.pick(&PickContext::new()).unwrap_err(), NoInstance::Empty);
    before.place("orders", "a", "a");
    before.place("others", "x", "x");
    before.place("orders", "b", "b");
    until_seen(&orders, &["a", "b"]).await;
    drop(process);
    assert!(orders.pick(&PickContext::new()).is_ok());

    // It comes back with an empty memory, and only one of the two.
    let after = Fake::new();
    after.place("orders", "b", "b");
    let _process = after.serve(&network, "registry");
    let mut changes = orders.changes();
    let back =
        async { while changes.next().await.unwrap().cursor().history_id != after.history() {} };
    soon(back).await;
    until_seen(&orders, &["a", "b"]).await;
    after.place("orders", "c", "c");
    until_seen(&orders, &["a", "b", "c"]).await;
}

#[tokio::test]
async fn a_refused_watch_shows_in_ready() {
    let (_network, _fake, _process, client) = registry();
    let service = client.service("no name");
    let refused = soon(service.ready()).await;
    assert!(matches!(refused, Err(ReadyError::Refused(_))), "{refused:?}");
}

#[tokio::test]
async fn handles_share_a_watch_that_ends_with_the_last() {
    let (_network, _fake, _process, client) = registry();
    let first = client.service("orders");
    soon(first.ready()).await.unwrap();
    let second = client.service("orders");
    assert!(second.snapshot().is_some(), "it is known already");
    drop((first, second));
    let third = client.service("orders");
    assert!(third.snapshot().is_none(), "it is watched afresh");
    soon(third.ready()).await.unwrap();
}

#[tokio::test]
async fn calls_are_spread_and_follow_who_comes_and_goes() {
    let (network, fake, _process, client) = registry();
    let (_a, _b) = (placed(&network, &fake, "a"), placed(&network, &fake, "b"));
    let channel = client.service("greeter").with_policy(Policy::LeastRequest).channel();
    let spread = counts(&channel, 200).await;
    assert!(spread["a"] > 50 && spread["b"] > 50, "{spread:?}");
    let _c = placed(&network, &fake, "c");
    until_seen(channel.service(), &["a", "b", "c"]).await;
    assert_eq!(counts(&channel, 300).await.len(), 3);
}

#[tokio::test]
async fn a_killed_replica_fails_no_later_call() {
    let (network, fake, _process, client) = registry();
    let (a, _b) = (placed(&network, &fake, "a"), placed(&network, &fake, "b"));
    let channel = client.channel("greeter");
    assert_eq!(counts(&channel, 100).await.len(), 2);
    drop(a);
    // Until the connection's end is seen, a call may still be lost on it.
    let mut lost = 0;
    while greet(&channel).await.is_err() {
        lost += 1;
    }
    assert!(lost <= 2, "{lost} calls lost");
    // The registry still lists it: its calls go to the other one.
    assert_eq!(counts(&channel, 200).await, BTreeMap::from([("b".into(), 200)]));
    let _a = replica(&network, "a");
    let returned = async { while greet(&channel).await.unwrap() != "a" {} };
    soon(returned).await;
}

#[tokio::test]
async fn calls_go_on_while_the_registry_is_away() {
    let (network, fake, process, client) = registry();
    let _a = placed(&network, &fake, "a");
    let channel = client.channel("greeter");
    assert_eq!(greet(&channel).await.unwrap(), "a");
    drop(process);
    assert_eq!(counts(&channel, 50).await, BTreeMap::from([("a".into(), 50)]));
}

#[tokio::test]
async fn without_instances_a_call_fails_at_once_and_says_why() {
    let (_network, _fake, _process, client) = registry();
    let channel = client.channel("greeter");
    let status = greet(&channel).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), "no instance of greeter: the service has no instances");
}

#[tokio::test]
async fn where_none_takes_a_connection_the_call_says_so() {
    let (network, fake, _process, client) = registry();
    for id in ["a", "b", "c"] {
        drop(placed(&network, &fake, id));
    }
    let channel = client.channel("greeter");
    let status = greet(&channel).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().starts_with("none of 3 instances of greeter"), "{status:?}");
}

#[tokio::test]
async fn a_calls_timeout_covers_everything() {
    let (network, fake, _process, client) = registry();
    let _a = placed(&network, &fake, "a");
    let channel = client.channel("greeter");
    let mut request = Request::new(GreetRequest { name: "nobody".into() });
    request.set_timeout(Duration::from_millis(100));
    let began = Instant::now();
    let status = soon(GreeterClient::new(channel.clone()).greet(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(began.elapsed() < Duration::from_secs(5));
    // And the channel is none the worse.
    assert_eq!(greet(&channel).await.unwrap(), "a");
}

#[tokio::test]
async fn a_busy_replica_is_passed_by() {
    let (network, fake, _process, client) = registry();
    let (_a, _b) = (placed(&network, &fake, "a"), placed(&network, &fake, "b"));
    let channel = client.channel("greeter");
    soon(channel.service().ready()).await.unwrap();
    // Calls that last go to both by turns: a call more always finds one that is less busy.
    let picks: Vec<_> =
        (0..100).map(|_| channel.service().pick(&PickContext::new()).unwrap()).collect();
    let at_a = picks.iter().filter(|pick| pick.instance().id == "a").count();
    assert!((49..=51).contains(&at_a), "{at_a}");
}

/// How many of some calls, made by eight callers at a time, fail.
async fn failures(channel: &BalancedChannel, calls: usize) -> usize {
    let greet = |_| async {
        let mut request = Request::new(GreetRequest { name: "you".into() });
        request.set_timeout(Duration::from_secs(1));
        soon(GreeterClient::new(channel.clone()).greet(request)).await
    };
    let answers = stream::iter(0..calls).map(greet).buffer_unordered(8);
    answers.filter(|answer| std::future::ready(answer.is_err())).count().await
}

#[tokio::test]
async fn an_instance_that_refuses_connections_fails_no_call() {
    let (network, fake, _process, client) = registry();
    let (_a, _b) = (placed(&network, &fake, "a"), placed(&network, &fake, "b"));
    fake.place("greeter", "gone", "gone");
    let channel = client.channel("greeter");
    assert_eq!(failures(&channel, 1_000).await, 0);
}

#[tokio::test]
async fn an_instance_that_is_cut_off_fails_no_call() {
    let (network, fake, _process, client) = registry();
    let (_a, _b) = (placed(&network, &fake, "a"), placed(&network, &fake, "b"));
    fake.place("greeter", "nowhere", "nowhere");
    let channel = client.channel("greeter");
    assert_eq!(failures(&channel, 1_000).await, 0);
}

#[tokio::test]
async fn an_instance_that_is_cut_off_is_left_alone_by_callers_without_patience() {
    let (network, fake, _process, client) = registry();
    let _a = placed(&network, &fake, "a");
    fake.place("greeter", "nowhere", "nowhere");
    let channel = client.channel("greeter");
    soon(channel.service().ready()).await.unwrap();
    let mut given_up = 0;
    for _ in 0..200 {
        let patience = Duration::from_millis(500);
        given_up += usize::from(tokio::time::timeout(patience, greet(&channel)).await.is_err());
    }
    // The first one, and a probe now and then.
    assert!((1..=10).contains(&given_up), "{given_up} of 200");
}

#[tokio::test]
async fn a_connection_is_made_however_short_the_calls_deadlines_are() {
    let (network, fake, _process, client) = registry();
    let _far = placed(&network, &fake, "far");
    let channel = client.channel("greeter");
    let served = async {
        loop {
            let mut request = Request::new(GreetRequest { name: "you".into() });
            request.set_timeout(Duration::from_millis(100));
            if GreeterClient::new(channel.clone()).greet(request).await.is_ok() {
                return;
            }
        }
    };
    soon(served).await;
}

#[tokio::test]
async fn instances_that_fail_or_say_nothing_are_left_alone_soon() {
    for bad in ["silent", "failing"] {
        let (network, fake, _process, client) = registry();
        let (_a, _b) = (placed(&network, &fake, "a"), placed(&network, &fake, "b"));
        let _bad = placed(&network, &fake, bad);
        let channel = client.channel("greeter");
        let failed = failures(&channel, 2_000).await;
        // Five in a row say so, however rarely it is called by then; those that are on their way fail
        // as well.
        assert!(failed <= 5 + 8, "{bad}: {failed}");
    }
}

#[tokio::test]
async fn an_attempt_whose_answer_is_lost_leaves_no_ghost() {
    let (_network, fake, _process, client) = registry();
    fake.alter(|state| state.answers_lost = 3);
    let registered = soon(client.register(nameless())).await.unwrap();
    let state = fake.state();
    assert_eq!((state.registrations, state.instances.len()), (4, 1));
    let id = registered.instance().id.clone();
    assert!(state.instances.contains_key(&id));
    soon(registered.deregister()).await.unwrap();
    assert!(fake.state().instances.is_empty());
}

#[tokio::test]
async fn two_registrations_without_id_are_two_instances() {
    let (_network, fake, _process, client) = registry();
    let (first, second) = tokio::join!(client.register(nameless()), client.register(nameless()));
    assert_eq!(fake.state().instances.len(), 2);
    drop((first, second));
}

#[tokio::test]
async fn giving_up_while_an_answer_is_on_its_way_deregisters() {
    for registration in [an_order(), nameless()] {
        let (_network, fake, _process, client) = registry();
        fake.alter(|state| state.answers_wait = true);
        tokio::select! {
            registered = client.register(registration) => panic!("{registered:?}"),
            () = fake.until(|state| !state.instances.is_empty()) => {}
        }
        fake.alter(|state| state.answers_wait = false);
        fake.until(|state| state.instances.is_empty()).await;
    }
}

#[tokio::test]
async fn giving_up_after_lost_answers_deregisters() {
    let (_network, fake, _process, client) = registry();
    fake.alter(|state| state.answers_lost = u64::MAX);
    tokio::select! {
        registered = client.register(nameless()) => panic!("{registered:?}"),
        () = fake.until(|state| state.registrations > 1) => {}
    }
    fake.until(|state| state.instances.is_empty()).await;
}

#[tokio::test]
async fn giving_up_takes_nothing_away_from_another_holder_of_a_given_id() {
    let (_network, fake, _process, client) = registry();
    fake.alter(|state| state.answers_lost = u64::MAX);
    tokio::select! {
        registered = client.register(an_order()) => panic!("{registered:?}"),
        () = fake.until(|state| state.registrations > 1) => {}
    }
    fake.alter(|state| state.answers_lost = 0);
    let registered = soon(client.register(an_order())).await.unwrap();
    fake.until(|state| state.heartbeats > 2).await;
    assert!(fake.state().instances.contains_key("a"));
    soon(registered.deregister()).await.unwrap();
}

#[tokio::test]
async fn closing_after_a_lost_answer_leaves_no_ghost() {
    let (_network, fake, _process, client) = registry();
    let registered = soon(client.register(nameless())).await.unwrap();
    fake.alter(|state| state.answers_lost = u64::MAX);
    fake.expire_all();
    fake.until(|state| state.registrations > 2).await;
    soon(registered.deregister()).await.unwrap();
    assert!(fake.state().instances.is_empty());
}

#[tokio::test]
async fn closing_says_so_where_a_given_id_may_still_be_registered() {
    let (_network, fake, _process, client) = registry();
    let registered = soon(client.register(an_order())).await.unwrap();
    fake.alter(|state| state.answers_lost = u64::MAX);
    fake.expire_all();
    fake.until(|state| state.registrations > 2).await;
    let closed = soon(registered.deregister()).await;
    let Err(error @ DeregisterError::Unreachable(_)) = closed else { panic!("{closed:?}") };
    let reason = Code::Unavailable.description();
    assert_eq!(error.to_string(), format!("the registry could not be reached: {reason}"));
}

#[tokio::test]
async fn a_state_that_changed_before_it_is_looked_at_is_not_missed() {
    let (_network, fake, _process, client) = registry();
    let registered = soon(client.register(an_order())).await.unwrap();
    let mut watching = registered.state();
    fake.alter(|state| state.refuses = Some("full"));
    fake.expire_all();
    let refused = |state: &RegistrationState| matches!(state, RegistrationState::Refused(_));
    soon(watching.wait_for(refused)).await.unwrap();
    let mut late = registered.state();
    soon(late.changed()).await.unwrap();
    assert!(refused(&late.borrow_and_update()));
    drop(registered);
    let closed = |state: &RegistrationState| *state == RegistrationState::Deregistered;
    soon(late.wait_for(closed)).await.unwrap();
}

#[tokio::test]
async fn an_update_is_not_answered_with_the_refusal_of_what_was_before() {
    let (_network, fake, _process, client) = registry();
    let mut registered = soon(client.register(an_order())).await.unwrap();
    let mut state = registered.state();
    for round in 1..20 {
        fake.alter(|state| state.refuses = Some("full"));
        fake.expire_all();
        let refused = |state: &RegistrationState| matches!(state, RegistrationState::Refused(_));
        soon(state.wait_for(refused)).await.unwrap();
        fake.alter(|state| state.refuses = None);
        soon(registered.update(Update::new().weight(round))).await.unwrap();
        assert_eq!(fake.state().instances["a"].weight, Some(round));
        // Time to show that it lives on, so that the next loss is noticed at once.
        let heartbeats = fake.state().heartbeats;
        fake.until(|state| state.heartbeats > heartbeats + 2).await;
        if round > 3 {
            break;
        }
    }
}

#[tokio::test]
async fn a_refused_watch_leaves_the_connection_alone() {
    let (network, _fake, _process, client) = registry();
    soon(client.service("orders").ready()).await.unwrap();
    let refused = client.service("no name");
    soon(refused.ready()).await.unwrap_err();
    soon(client.service("others").ready()).await.unwrap();
    assert_eq!(network.connections(), 1);
}

#[tokio::test]
async fn a_fixed_service_tells_its_view_and_no_other() {
    let service = Service::fixed([Instance::default()]);
    soon(service.ready()).await.unwrap();
    let mut changes = service.changes();
    assert!(soon(changes.next()).await.is_some());
    assert!(soon(changes.next()).await.is_none());
}

#[test]
fn a_watch_that_ends_with_its_runtime_says_so_and_is_begun_again() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_network, _fake, _process, client) = registry();
    let (first, second) = (runtime(), runtime());
    let orders = first.block_on(async { client.service("orders") });
    drop(first);
    second.block_on(async {
        assert!(matches!(soon(orders.ready()).await, Err(ReadyError::Stopped)));
        assert!(soon(orders.changes().next()).await.is_none());
        soon(client.service("orders").ready()).await.unwrap();
    });
}

#[test]
fn a_registration_that_ends_with_its_runtime_says_so() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_network, fake, _process, client) = registry();
    let (first, second) = (runtime(), runtime());
    let mut registered = first.block_on(client.register(an_order())).unwrap();
    drop(first);
    fake.expire_all();
    second.block_on(async {
        let updated = soon(registered.set_weight(1)).await;
        assert!(matches!(updated, Err(UpdateError::Stopped)), "{updated:?}");
        assert_eq!(*registered.state().borrow(), RegistrationState::Deregistered);
        assert!(matches!(soon(registered.deregister()).await, Err(DeregisterError::Stopped)));
    });
}

/// What was logged, at `info` and above.
#[derive(Clone, Default)]
struct Logs(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Logs {
    /// Logs of this thread, which the client works in, go here.
    fn here() -> (Self, tracing::subscriber::DefaultGuard) {
        // While there is one subscriber alone, a line that is first logged in a thread without any is
        // taken to be of no interest, everywhere.
        static SECOND: LazyLock<tracing::Dispatch> = LazyLock::new(|| {
            let subscriber = tracing_subscriber::fmt().with_writer(std::io::sink);
            subscriber.with_max_level(tracing::Level::INFO).finish().into()
        });
        LazyLock::force(&SECOND);
        let logs = Self::default();
        let writer = logs.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::INFO)
            .with_writer(move || writer.clone())
            .finish();
        (logs, tracing::subscriber::set_default(subscriber))
    }

    /// The lines with all of these parts.
    fn with(&self, parts: &[&str]) -> usize {
        let logs = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        logs.lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }

    async fn until(&self, parts: &[&str]) {
        soon(async {
            while self.with(parts) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

const HERE: &str = "peer=\"registry:7510\"";

#[tokio::test]
async fn a_registry_that_is_not_there_yet_is_logged_once() {
    let (logs, _guard) = Logs::here();
    let (network, fake) = (Network::default(), Fake::new());
    let client = client(&network, &["registry"]);
    let (log, there) = (logs.clone(), network.clone());
    let starting = async {
        log.until(&["WARN", "can't register yet"]).await;
        soon(there.until_asked(5)).await;
        fake.serve(&there, "registry")
    };
    let (registered, _process) = tokio::join!(client.register(an_order()), starting);
    let warning = ["WARN", HERE, "service=\"orders\"", "instance=\"a\"", "connection refused"];
    assert_eq!(logs.with(&warning), 1);
    assert_eq!(logs.with(&["WARN"]), 1);
    assert_eq!(logs.with(&["INFO", "registry reached"]), 1);
    drop(registered);
}

#[tokio::test]
async fn each_outage_is_logged_once() {
    let (logs, _guard) = Logs::here();
    let (network, fake, process, client) = registry();
    let service = client.service("orders");
    soon(service.ready()).await.unwrap();
    let registered = soon(client.register(an_order())).await.unwrap();
    fake.until(|state| state.heartbeats > 1).await;
    drop(process);
    let watch = ["WARN", HERE, "service=\"orders\"", "can't watch"];
    let heartbeats = ["WARN", HERE, "service=\"orders\"", "instance=\"a\"", "heartbeats broke off"];
    logs.until(&watch).await;
    logs.until(&heartbeats).await;
    soon(network.until_asked(10)).await;
    let _process = fake.serve(&network, "registry");
    logs.until(&["INFO", "watching again"]).await;
    logs.until(&["INFO", "instance=\"a\"", "registry reached again"]).await;
    assert_eq!((logs.with(&watch), logs.with(&heartbeats)), (1, 1));
    assert_eq!(logs.with(&["WARN"]), 2);
    drop(registered);
}
