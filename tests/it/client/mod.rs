//! The client crate against the real server: what services and gateways see. The registry can be
//! ended and started anew under the same name, since clients here connect by name.

mod processes;
mod registry;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    time::Duration,
};

use tokio::{net::TcpListener, time::timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, transport::server::Router};
use waypost::{Config, config::StoreKind, model::Limits};
use waypost_client::{
    Client, NoInstance, PickContext, Policy, RegisterError, Registered, Registration,
    RegistrationState, Service, Snapshot, Update,
    proto::{
        ChangeReason, DeregisterRequest, GetStatusRequest, Status, admin_client::AdminClient,
        registry_client::RegistryClient,
    },
};

use self::registry::{Registry, next_removal};

/// Longer than any wait of these tests where all is well.
const PATIENCE: Duration = Duration::from_secs(30);
const TTL: Duration = Duration::from_secs(1);

fn orders(id: &str, port: u16) -> Registration {
    Registration::new("orders", "127.0.0.1", port).id(id).ttl(TTL)
}

/// Waits until the view is as wanted.
async fn until(service: &Service, wanted: impl Fn(&Snapshot) -> bool) {
    let mut changes = service.changes();
    let seen = async {
        while !service.snapshot().is_some_and(|snapshot| wanted(&snapshot)) {
            changes.next().await;
        }
    };
    let name = service.name();
    timeout(PATIENCE, seen).await.unwrap_or_else(|_| {
        panic!("{name} stays at {:?}", service.snapshot().map(|snapshot| ids(&snapshot)))
    });
}

async fn until_state(registered: &Registered, wanted: impl Fn(&RegistrationState) -> bool) {
    let mut state = registered.state();
    let waited = timeout(PATIENCE, state.wait_for(wanted)).await;
    waited.expect("the state comes in time").expect("the guard lives");
}

fn ids(snapshot: &Snapshot) -> Vec<String> {
    snapshot.instances().map(|instance| instance.id.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn registered_instance_is_found_and_kept_by_heartbeats() {
    let registry = Registry::start();
    let client = registry.client();
    let mut watch = registry.watch("orders").await;
    let registered = client.register(orders("a", 80).zone("z").metadata("k", "v")).await.unwrap();
    let service = client.service("orders");
    until(&service, |snapshot| snapshot.len() == 1).await;
    let snapshot = service.snapshot().unwrap();
    let found = snapshot.instance("a").unwrap();
    assert_eq!((found.zone.as_str(), found.metadata["k"].as_str()), ("z", "v"));
    assert_eq!(service.pick(&PickContext::new()).unwrap().address(), "127.0.0.1:80");

    // Three times the TTL: the next event is its deregistration.
    assert!(timeout(3 * TTL, next_removal(&mut watch)).await.is_err());
    registered.deregister().await.unwrap();
    let (id, reason) = timeout(PATIENCE, next_removal(&mut watch)).await.expect("it leaves");
    assert_eq!((id.as_str(), reason), ("a", ChangeReason::Deregistered));
    until(&service, Snapshot::is_empty).await;
    assert!(matches!(service.pick(&PickContext::new()), Err(NoInstance::Empty)));
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_guard_deregisters() {
    let registry = Registry::start();
    let mut watch = registry.watch("orders").await;
    let client = registry.client();
    drop(client.register(orders("a", 80).ttl(PATIENCE)).await.unwrap());
    let (_, reason) = timeout(PATIENCE, next_removal(&mut watch)).await.expect("it leaves");
    assert_eq!(reason, ChangeReason::Deregistered);
}

#[tokio::test(flavor = "multi_thread")]
async fn evicted_instance_registers_again_with_its_last_content() {
    let registry = Registry::start();
    let client = registry.client();
    let mut watch = registry.watch("orders").await;
    let mut registered = client.register(orders("a", 80)).await.unwrap();
    registered.update(Update::new().weight(7)).await.unwrap();
    let first = registered.lease_id().unwrap();
    let request = DeregisterRequest {
        service: "orders".to_owned(),
        id: "a".to_owned(),
        ..DeregisterRequest::default()
    };
    RegistryClient::new(registry.channel()).deregister(request).await.unwrap();
    let (_, reason) = timeout(PATIENCE, next_removal(&mut watch)).await.expect("it is evicted");
    assert_eq!(reason, ChangeReason::Evicted);
    until_state(
        &registered,
        |state| matches!(state, RegistrationState::Registered { lease_id } if *lease_id != first),
    )
    .await;
    let service = client.service("orders");
    until(&service, |snapshot| {
        snapshot.instance("a").is_some_and(|instance| instance.weight == Some(7))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_registry_empties_no_view() {
    let mut registry = Registry::start();
    let client = registry.client();
    let registered = client.register(orders("a", 80).ttl(Duration::from_secs(2))).await.unwrap();
    let first = registered.lease_id().unwrap();
    let caller = registry.client();
    let service = caller.service("orders");
    until(&service, |snapshot| snapshot.len() == 1).await;
    let history = service.snapshot().unwrap().cursor().history_id.clone();

    registry.end().await;
    assert!(service.pick(&PickContext::new()).is_ok(), "an outage costs no pick");
    registry.start_again();
    let always = async {
        loop {
            assert!(service.pick(&PickContext::new()).is_ok(), "a known instance stays usable");
            tokio::task::yield_now().await;
        }
    };
    let back = async {
        until(&service, |snapshot| snapshot.cursor().history_id != history).await;
        until_state(&registered, |state| {
            matches!(state, RegistrationState::Registered { lease_id } if *lease_id != first)
        })
        .await;
    };
    tokio::select! { () = always => {}, () = back => {} }
    let status = AdminClient::new(registry.channel()).get_status(GetStatusRequest {}).await;
    assert_eq!(status.unwrap().into_inner().instances, 1, "it has registered again by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_name_the_fields() {
    let registry = Registry::start();
    let client = registry.client();
    let refused = client.register(Registration::new("-", "a b", 0).ttl(TTL / 2)).await;
    let Err(RegisterError::Invalid(refusal)) = refused else { panic!("{refused:?}") };
    let fields: HashSet<_> =
        refusal.violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(
        fields,
        HashSet::from(["instance.service", "instance.host", "instance.port", "ttl"])
    );

    let limits = Limits { instances_max: 1, ..Limits::default() };
    let registry =
        Registry::start_with(Config { store: StoreKind::Memory, limits, ..Config::default() });
    let client = registry.client();
    let _first = client.register(orders("a", 80)).await.unwrap();
    let refused = client.register(orders("b", 81)).await;
    assert!(matches!(refused, Err(RegisterError::LimitReached(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_policies_reach_every_instance_that_takes_traffic() {
    let registry = Registry::start();
    let client = registry.client();
    let mut guards = Vec::new();
    for id in 0..5 {
        guards.push(client.register(orders(&format!("i{id}"), 80 + id)).await.unwrap());
    }
    guards[0].set_status(Status::Draining).await.unwrap();
    guards[1].set_weight(0).await.unwrap();
    for policy in [Policy::RoundRobin, Policy::LeastRequest] {
        let service = client.service_with("orders", policy);
        until(&service, |snapshot| {
            let instance = |id| snapshot.instance(id);
            instance("i0").is_some_and(|instance| instance.status() == Status::Draining)
                && instance("i1").is_some_and(|instance| instance.weight == Some(0))
        })
        .await;
        let picked: HashSet<_> = (0..200)
            .map(|_| service.pick(&PickContext::new()).unwrap().instance().id.clone())
            .collect();
        let wanted = ["i2", "i3", "i4"].map(str::to_owned);
        assert_eq!(picked, HashSet::from(wanted), "{policy:?}");
    }
}

/// A service of its own for each replica: the health service, whose response identifies the
/// replica.
async fn replica(serving: bool) -> SocketAddr {
    let (reporter, health) = tonic_health::server::health_reporter();
    let status = if serving {
        tonic_health::ServingStatus::Serving
    } else {
        tonic_health::ServingStatus::NotServing
    };
    reporter.set_service_status("", status).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router: Router = tonic::transport::Server::builder().add_service(health);
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

/// The number of responses of each kind. Calls go to the replica with fewer in flight: sequential
/// calls by latency may all go to the quicker one.
async fn answers(client: &Client, calls: usize) -> HashMap<Result<i32, Code>, usize> {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let orders = client.service("orders").with_policy(Policy::LeastRequest);
    let mut health = HealthClient::new(orders.channel());
    let mut answers = HashMap::new();
    for _ in 0..calls {
        let answer = health.check(HealthCheckRequest::default()).await;
        let answer = answer.map(|answer| answer.into_inner().status).map_err(|error| error.code());
        *answers.entry(answer).or_default() += 1;
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn channel_follows_membership_while_calls_run() {
    let registry = Registry::start();
    let client = registry.client();
    assert_eq!(answers(&client, 1).await, HashMap::from([(Err(Code::Unavailable), 1)]));

    let (first, second) = (replica(true).await, replica(false).await);
    let first = client.register(orders("first", first.port())).await.unwrap();
    let service = client.service("orders");
    until(&service, |snapshot| snapshot.len() == 1).await;
    assert_eq!(answers(&client, 50).await, HashMap::from([(Ok(1), 50)]));

    let _second = client.register(orders("second", second.port())).await.unwrap();
    until(&service, |snapshot| snapshot.len() == 2).await;
    let both = answers(&client, 200).await;
    assert!(both.len() == 2 && both.values().all(|count| *count > 20), "{both:?}");

    first.deregister().await.unwrap();
    until(&service, |snapshot| snapshot.len() == 1).await;
    assert_eq!(answers(&client, 50).await, HashMap::from([(Ok(2), 50)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn instance_that_refuses_connections_fails_no_call() {
    let registry = Registry::start();
    let client = registry.client();
    let live = replica(true).await;
    // Bound and not listening: connections are refused while the socket exists.
    let dead = tokio::net::TcpSocket::new_v4().unwrap();
    dead.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let dead_port = dead.local_addr().unwrap().port();
    let _live = client.register(orders("live", live.port())).await.unwrap();
    let _dead = client.register(orders("dead", dead_port)).await.unwrap();
    until(&client.service("orders"), |snapshot| snapshot.len() == 2).await;
    assert_eq!(answers(&client, 200).await, HashMap::from([(Ok(1), 200)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_succeed_while_the_registry_is_unreachable() {
    let mut registry = Registry::start();
    let client = registry.client();
    let live = replica(true).await;
    let _live = client.register(orders("live", live.port())).await.unwrap();
    // Held, since a view lasts as long as its handles.
    let service = client.service("orders");
    until(&service, |snapshot| snapshot.len() == 1).await;
    registry.end().await;
    assert_eq!(answers(&client, 100).await, HashMap::from([(Ok(1), 100)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn next_address_is_used_when_a_registry_is_unreachable() {
    let registry = Registry::start();
    let client = registry.builder().registry("http://nowhere:1").build().unwrap();
    for id in 0..4 {
        let registered = client.register(orders(&format!("i{id}"), 80)).await.unwrap();
        registered.deregister().await.unwrap();
    }
}
