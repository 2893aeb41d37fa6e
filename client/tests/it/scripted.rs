//! The registry in memory for users' tests, with real clients and paused time: clients see the
//! effects of a script.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Request, Response, Status};
use waypost_client::{
    BalancedChannel, InFlight, Instance, ReadyError, RegisterError, Registered, Registration,
    RegistrationState, Service, Update, fake::Registry, proto,
};
use waypost_testing::greeter::{
    GreetRequest, GreetResponse,
    greeter_client::GreeterClient,
    greeter_server::{Greeter, GreeterServer},
};

/// Paused time advances only while all tasks wait: a wait of this length is endless.
const EVER: Duration = Duration::from_secs(3600);

fn order(id: &str) -> Registration {
    Registration::new("orders", "10.0.0.1", 80).id(id)
}

/// Waits until the view has exactly these instances.
async fn until_seen(service: &Service, ids: &str) {
    let mut changes = service.changes();
    let seen = async {
        while let Some(snapshot) = changes.next().await {
            let seen: Vec<_> = snapshot.instances().map(|instance| &*instance.id).collect();
            if seen.join(" ") == ids {
                return;
            }
        }
        panic!("the watch has ended");
    };
    timeout(EVER, seen).await.unwrap();
}

async fn until_another_lease(registered: &Registered, old: u64) {
    let mut state = registered.state();
    let another = |state: &RegistrationState| matches!(state, RegistrationState::Registered { lease_id } if *lease_id != old);
    timeout(EVER, state.wait_for(another)).await.unwrap().unwrap();
}

async fn until(registry: &Registry, holds: impl Fn(&Registry) -> bool) {
    timeout(EVER, registry.until(holds)).await.unwrap();
}

/// One of two processes with the same id.
fn at(host: &str) -> Registration {
    Registration::new("orders", host, 80).id("a")
}

#[tokio::test(start_paused = true)]
async fn later_process_with_an_id_keeps_it_and_the_other_reports_its_address() {
    let registry = Registry::new();
    let first = registry.client().register(at("10.0.0.1")).await.unwrap();
    let lease = first.lease_id().unwrap();
    sleep(Duration::from_secs(60)).await;
    let second = registry.client().register(at("fd00::2")).await.unwrap();
    let holder = second.lease_id();
    let replaced = RegistrationState::Replaced { address: "[fd00::2]:80".into() };
    let mut state = first.state();
    timeout(Duration::from_secs(6), state.wait_for(|state| *state == replaced))
        .await
        .unwrap()
        .unwrap();
    let cursor = registry.instances("orders")[0].modified_revision;
    sleep(EVER).await;
    assert_eq!((second.lease_id(), &*first.state().borrow()), (holder, &replaced));
    assert_eq!(registry.instances("orders")[0].modified_revision, cursor);
    // It is back within a minute of the other's end, and follows a third one that comes then.
    second.deregister().await.unwrap();
    timeout(Duration::from_secs(61), until_another_lease(&first, lease)).await.unwrap();
    assert_eq!(registry.instances("orders")[0].host, "10.0.0.1");
    let _third = registry.client().register(at("10.0.0.3")).await.unwrap();
    let replaced = RegistrationState::Replaced { address: "10.0.0.3:80".into() };
    timeout(Duration::from_secs(6), state.wait_for(|state| *state == replaced))
        .await
        .unwrap()
        .unwrap();
    first.deregister().await.unwrap();
    assert_eq!(registry.instances("orders")[0].host, "10.0.0.3");
}

#[tokio::test(start_paused = true)]
async fn processes_with_one_identity_take_it_over_ever_more_rarely() {
    let registry = Registry::new();
    let first = registry.client().register(at("10.0.0.1")).await.unwrap();
    let second = registry.client().register(at("10.0.0.1")).await.unwrap();
    let mut changes = [0, 0];
    for (hour, count) in changes.iter_mut().enumerate() {
        let mut states = [first.state(), second.state()];
        states.iter_mut().for_each(|state| state.mark_unchanged());
        let end = Instant::now() + EVER;
        let [a, b] = &mut states;
        while Instant::now() < end {
            tokio::select! {
                Ok(()) = a.changed() => {}
                Ok(()) = b.changed() => {}
                () = tokio::time::sleep_until(end) => {}
            }
            let leased =
                |state: &RegistrationState| matches!(state, RegistrationState::Registered { .. });
            *count += usize::from(leased(&a.borrow_and_update()) && leased(&b.borrow_and_update()));
        }
        // After the first minutes, each waits 30 s to 60 s before it takes the identity over.
        assert!(*count <= 3600 / 30 * 2 + 20, "hour {hour}: {count}");
    }
    assert_eq!(registry.instances("orders").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn draining_process_leaves_its_id_to_its_successor() {
    let registry = Registry::new();
    let before = registry.client().register(at("10.0.0.1")).await.unwrap();
    let in_flight = InFlight::new();
    let drained = tokio::spawn(async move {
        let _call = in_flight.begin();
        before.drain_calls(&in_flight, EVER / 60).await
    });
    let shown = |registry: &Registry| registry.instances("orders").first().map(Instance::status);
    until(&registry, |registry| shown(registry) == Some(proto::Status::Draining)).await;
    let after = registry.client().register(at("10.0.0.1")).await.unwrap();
    let mut states = after.state();
    while !drained.is_finished() {
        assert_eq!(shown(&registry), Some(proto::Status::Up));
        sleep(Duration::from_millis(50)).await;
    }
    sleep(Duration::from_secs(60)).await;
    assert_eq!(
        shown(&registry),
        Some(proto::Status::Up),
        "the end of the earlier one changes nothing"
    );
    assert!(matches!(*states.borrow_and_update(), RegistrationState::Registered { .. }));
}

struct Named(&'static str);

#[tonic::async_trait]
impl Greeter for Named {
    async fn greet(&self, _: Request<GreetRequest>) -> Result<Response<GreetResponse>, Status> {
        let instance = self.0.to_owned();
        Ok(Response::new(GreetResponse { greeting: "hello".to_owned(), instance }))
    }
}

async fn greet(channel: &BalancedChannel) -> String {
    let answer = GreeterClient::new(channel.clone()).greet(GreetRequest::default()).await;
    answer.unwrap().into_inner().instance
}

#[tokio::test(start_paused = true)]
async fn registration_heartbeats_every_third_of_its_ttl() {
    let registry = Registry::new();
    let registered = registry.client().register(order("a").ttl(Duration::from_secs(30))).await;
    let registered = registered.unwrap();
    until(&registry, |registry| registry.heartbeats() == 1).await;
    let first = Instant::now();
    until(&registry, |registry| registry.heartbeats() == 4).await;
    assert_eq!(first.elapsed().as_secs(), 30);
    registered.deregister().await.unwrap();
    assert!(registry.instances("orders").is_empty());
}

#[tokio::test(start_paused = true)]
async fn instance_with_an_expired_lease_registers_again() {
    let registry = Registry::new();
    let client = registry.client();
    let registered = client.register(order("a").zone("eu")).await.unwrap();
    let orders = client.service("orders");
    until_seen(&orders, "a").await;
    let lease = registered.lease_id().unwrap();
    assert_eq!(registry.expire("orders", "a").unwrap().zone, "eu");
    until_seen(&orders, "").await;
    until_another_lease(&registered, lease).await;
    until_seen(&orders, "a").await;
    assert_eq!(registry.instances("orders")[0].zone, "eu");
}

#[tokio::test(start_paused = true)]
async fn identity_taken_over_is_registered_again() {
    let registry = Registry::new();
    let registered = registry.client().register(order("a")).await.unwrap();
    let lease = registered.lease_id().unwrap();
    registry.join(order("a").version("2"));
    assert_eq!(registry.instances("orders")[0].version, "2");
    until_another_lease(&registered, lease).await;
    assert_eq!(registry.instances("orders")[0].version, "");
}

#[tokio::test(start_paused = true)]
async fn watch_sees_joins_changes_and_removals() {
    let registry = Registry::new();
    let orders = registry.client().service("orders");
    orders.ready().await.unwrap();
    registry.join(order("b"));
    registry.join(order("a"));
    registry.join(Registration::new("others", "10.0.0.1", 80).id("x"));
    until_seen(&orders, "a b").await;
    registry.update("orders", "a", &Update::new().status(proto::Status::Draining));
    registry.leave("orders", "b").unwrap();
    until_seen(&orders, "a").await;
    let snapshot = orders.snapshot().unwrap();
    assert_eq!(snapshot.instance("a").unwrap().status(), proto::Status::Draining);
    assert_eq!(registry.watchers(), 1);
    drop(orders);
    until(&registry, |registry| registry.watchers() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn watch_catches_up_after_an_outage() {
    let registry = Registry::new();
    registry.join(order("a"));
    let client = registry.client();
    let orders = client.service("orders");
    until_seen(&orders, "a").await;
    let registered = client.register(order("b")).await.unwrap();
    until_seen(&orders, "a b").await;

    registry.outage();
    until(&registry, |registry| registry.watchers() == 0).await;
    registry.leave("orders", "a");
    let (heartbeats, began) = (registry.heartbeats(), Instant::now());
    sleep(Duration::from_secs(60)).await;
    assert_eq!(registry.heartbeats(), heartbeats);
    assert_eq!(orders.snapshot().unwrap().len(), 2, "what is known stays known");
    registry.restore();
    until_seen(&orders, "b").await;
    until(&registry, |registry| registry.heartbeats() > heartbeats).await;
    assert!(began.elapsed() < Duration::from_secs(75), "within the longest backoff and a beat");
    drop(registered);
}

#[tokio::test(start_paused = true)]
async fn instances_missing_after_a_restart_are_held() {
    let registry = Registry::new();
    registry.join(order("a"));
    let client = registry.builder().keep_missing_for(Duration::from_secs(40)).build().unwrap();
    let orders = client.service("orders");
    until_seen(&orders, "a").await;
    let registered = client.register(order("b")).await.unwrap();
    until_seen(&orders, "a b").await;
    let before = orders.snapshot().unwrap().cursor().history_id.clone();
    registry.forget();
    let forgot = Instant::now();
    until_seen(&orders, "b").await;
    let held = forgot.elapsed().as_secs();
    assert!((40..=45).contains(&held), "{held}");
    assert_ne!(orders.snapshot().unwrap().cursor().history_id, before);
    drop(registered);
}

#[tokio::test(start_paused = true)]
async fn late_response_counts_as_lost() {
    let registry = Registry::new();
    // Longer than a client waits for any response.
    registry.delay(Duration::from_secs(7));
    let client = registry.client();
    let registering = client.register(Registration::new("orders", "10.0.0.1", 80));
    tokio::pin!(registering);
    assert!(timeout(Duration::from_secs(30), &mut registering).await.is_err());
    assert_eq!(registry.instances("orders").len(), 1, "every attempt is the same instance");
    registry.restore();
    let registered = timeout(EVER, registering).await.unwrap().unwrap();
    assert_eq!(registry.instances("orders")[0].id, registered.instance().id);
}

#[tokio::test(start_paused = true)]
async fn refusal_is_returned_until_the_registry_is_restored() {
    let registry = Registry::new();
    let client = registry.client();
    registry.refuse(Status::resource_exhausted("full"));
    let refused = client.register(order("a")).await;
    assert!(
        matches!(&refused, Err(RegisterError::LimitReached(refusal)) if refusal.message == "full")
    );
    let orders = client.service("orders");
    assert!(matches!(orders.ready().await, Err(ReadyError::Refused(_))));
    registry.restore();
    drop(timeout(EVER, client.register(order("a"))).await.unwrap().unwrap());
    until_seen(&orders, "").await;
}

#[tokio::test(start_paused = true)]
async fn invalid_registration_is_refused_by_its_fields() {
    let client = Registry::new().client();
    let refused = client.register(Registration::new("orders", "10.0.0.1", 0)).await;
    let Err(RegisterError::Invalid(refusal)) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.violations[0].field, "instance.port");
}

#[tokio::test(start_paused = true)]
async fn calls_skip_a_stopped_server() {
    let registry = Registry::new();
    for (id, host) in [("a", "10.0.0.1"), ("b", "10.0.0.2")] {
        registry.serve(&format!("{host}:80"), GreeterServer::new(Named(id)));
        registry.join(Registration::new("greeter", host, 80).id(id));
    }
    let channel = registry.client().channel("greeter");
    while greet(&channel).await != "a" {}
    registry.stop("10.0.0.1:80");
    // Once the broken connection has been seen.
    sleep(Duration::from_millis(1)).await;
    for _ in 0..100 {
        assert_eq!(greet(&channel).await, "b");
    }
    registry.stop("10.0.0.2:80");
    registry.serve("10.0.0.1:80", GreeterServer::new(Named("a again")));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(greet(&channel).await, "a again");
}

#[tokio::test(start_paused = true)]
async fn namespaces_are_isolated() {
    let registry = Registry::new();
    let shop = registry.in_namespace("shop");
    let orders = shop.client().service("orders");
    registry.join(order("a"));
    shop.join(order("b"));
    until_seen(&orders, "b").await;
    assert!(registry.leave("orders", "b").is_none());
    assert!(shop.leave("orders", "b").is_some());
    until_seen(&orders, "").await;
}

#[tokio::test(start_paused = true)]
async fn fake_registry_serves_lookups_and_filters() {
    let registry = Registry::new();
    registry.join(Registration::new("registries", "registry.invalid", 7510).id("a"));
    let channel = registry.client().channel("registries");
    let mut discovery = proto::discovery_client::DiscoveryClient::new(channel);
    let request = proto::ResolveRequest { service: "registries".into(), ..Default::default() };
    let resolved = discovery.resolve(request.clone()).await.unwrap().into_inner();
    assert_eq!(resolved.instances, registry.instances("registries"));
    let filter = Some(proto::Filter { zones: vec!["a".into()], ..Default::default() });
    let filtered = discovery.resolve(proto::ResolveRequest { filter, ..request }).await.unwrap();
    assert!(filtered.into_inner().instances.is_empty());
}

#[tokio::test(start_paused = true)]
async fn lookup_with_a_page_size_is_paged() {
    let registry = Registry::new();
    registry.join(Registration::new("registries", "registry.invalid", 7510).id("a"));
    for id in ["b", "c", "d", "e"] {
        registry.join(Registration::new("orders", "10.0.0.1", 80).id(id));
    }
    let channel = registry.client().channel("registries");
    let mut discovery = proto::discovery_client::DiscoveryClient::new(channel);
    for (page_size, pages) in [(0, 1), (1, 4), (2, 2), (3, 2), (4, 1), (u32::MAX, 1)] {
        let (service, mut found) = ("orders".to_owned(), Vec::new());
        let mut request = proto::ResolveRequest { service, page_size, ..Default::default() };
        for page in 1..=pages {
            let resolved = discovery.resolve(request.clone()).await.unwrap().into_inner();
            found.extend(resolved.instances.into_iter().map(|instance| instance.id));
            assert_eq!(resolved.next_page_token.is_empty(), page == pages, "{page_size}");
            request.page_token = resolved.next_page_token;
        }
        assert_eq!(found, ["b", "c", "d", "e"], "{page_size}");
    }
    let page_token = "?".to_owned();
    let request =
        proto::ResolveRequest { service: "orders".into(), page_token, ..Default::default() };
    let refused = discovery.resolve(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("page_token: "), "{refused}");
}

/// The events of a client in an eventful hour, with their times.
async fn an_hour() -> Vec<String> {
    fastrand::seed(7);
    let (registry, began) = (Registry::new(), Instant::now());
    let registered = registry.client().register(order("a")).await.unwrap();
    let orders = registry.client().service("orders");
    let mut changes = orders.changes();
    let mut log = Vec::new();
    let script = async {
        for round in 0..60 {
            match round % 4 {
                0 => registry.outage(),
                1 => registry.restore(),
                2 => registry.forget(),
                _ => drop(registry.expire("orders", "a")),
            }
            sleep(Duration::from_secs(60)).await;
        }
    };
    let listening = async {
        while let Some(snapshot) = changes.next().await {
            let (cursor, at) = (snapshot.cursor().clone(), began.elapsed());
            log.push(format!("{at:?} {} {cursor:?}", snapshot.len()));
        }
    };
    tokio::select! {
        () = script => {}
        () = listening => {}
    }
    let lease = registered.lease_id().unwrap();
    log.push(format!("{} heartbeats, lease {lease}", registry.heartbeats()));
    log
}

#[test]
fn paused_time_is_deterministic() {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(an_hour())
    };
    let (first, second) = (run(), run());
    assert!(first.len() > 15, "{first:#?}");
    assert_eq!(first, second);
}
