//! What Registry, Discovery and Admin promise of each method, streams of changes aside.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{
    Follower, TestServer, bad_fields, ids, instance, millis, placed,
    proto::{
        BackupRequest, ChangeKind, ChangeReason, DeregisterRequest, Filter, HeartbeatRequest,
        Instance, KeepAliveRequest, ListServicesRequest, RegisterRequest, ResolveRequest, Status,
        UpdateRequest,
    },
    register, register_request, resolve_all, resolve_all_in, revision, soon, watch_of,
};

fn update(lease_id: u64, paths: &[&str], instance: Instance) -> UpdateRequest {
    let paths = paths.iter().map(|&path| path.to_owned()).collect();
    UpdateRequest {
        lease_id,
        instance: Some(instance),
        update_mask: Some(prost_types::FieldMask { paths }),
        ..UpdateRequest::default()
    }
}

fn update_named(service: &str, id: &str, paths: &[&str], instance: Instance) -> UpdateRequest {
    let request = update(0, paths, instance);
    UpdateRequest { service: service.to_owned(), id: id.to_owned(), ..request }
}

fn by_lease(lease_id: u64) -> DeregisterRequest {
    DeregisterRequest { lease_id, ..DeregisterRequest::default() }
}

fn by_name(service: &str, id: &str) -> DeregisterRequest {
    DeregisterRequest { service: service.into(), id: id.into(), ..DeregisterRequest::default() }
}

fn weighing(weight: u32) -> Instance {
    Instance { weight: Some(weight), ..Instance::default() }
}

fn seconds(duration: Option<prost_types::Duration>) -> f64 {
    let duration = duration.expect("a duration");
    f64::from(u32::try_from(duration.seconds).expect("seconds")) + f64::from(duration.nanos) / 1e9
}

#[tokio::test]
async fn what_a_registration_leaves_open_the_server_fills_in() {
    let server = TestServer::start().await;
    let before = SystemTime::now();
    let request = register_request(instance("orders", ""));
    let answer = server.registry().register(request).await.expect("taken").into_inner();
    let made = answer.instance.expect("an instance");
    assert_eq!(made.namespace, "default");
    assert_eq!(made.weight, Some(100));
    assert_eq!(made.status(), Status::Up);
    assert_eq!((made.created_revision, made.modified_revision), (1, 1));
    assert_eq!(uuid::Uuid::parse_str(&made.id).expect("a UUID").get_version_num(), 7);
    let registered_at = SystemTime::try_from(made.registered_at.expect("a time")).expect("valid");
    let apart =
        registered_at.duration_since(before).unwrap_or_else(|error| error.duration()).as_secs();
    assert!(apart < 60, "registered {apart} s apart from now");
    assert_ne!(answer.lease_id, 0);
    assert!((seconds(answer.ttl) - 15.0).abs() < 1e-9);
    assert!((seconds(answer.heartbeat_interval) - 5.0).abs() < 1e-9);
    let cursor = answer.cursor.expect("a cursor");
    assert_eq!(cursor.revision, 1);
    assert_eq!(cursor.history_id, server.status().await.history_id);
    server.stop().await;
}

#[tokio::test]
async fn what_a_registration_says_is_what_everyone_reads() {
    let server = TestServer::start().await;
    let said = Instance {
        namespace: "prod.eu".into(),
        host: "2001:db8::1".into(),
        port: 65_535,
        ports: BTreeMap::from([("metrics".to_owned(), 1), ("admin".to_owned(), 65_535)]),
        status: Status::Starting.into(),
        weight: Some(0),
        metadata: BTreeMap::from([("team".to_owned(), "käse".to_owned()), ("e".into(), "".into())]),
        // Output only: what a caller says here is not heard.
        created_revision: 77,
        modified_revision: 78,
        ..placed("orders", "pod/7 ä😀", "eu-1a", "2.0 beta")
    };
    let answer = register(&mut server.registry(), said.clone()).await;
    let made = answer.instance.expect("an instance");
    let registered_at = made.registered_at;
    let expected = Instance { created_revision: 1, modified_revision: 1, registered_at, ..said };
    assert_eq!(made, expected);
    let read = resolve_all_in(&mut server.discovery(), "prod.eu", "orders").await;
    assert_eq!(read.instances, [expected]);
    assert!(resolve_all(&mut server.discovery(), "orders").await.instances.is_empty());
}

#[tokio::test]
async fn ids_that_the_server_makes_differ() {
    let server = TestServer::start().await;
    let mut made = BTreeSet::new();
    for _ in 0..200 {
        let answer = register(&mut server.registry(), instance("orders", "")).await;
        made.insert(answer.instance.expect("an instance").id);
    }
    assert_eq!(made.len(), 200);
}

#[tokio::test]
async fn the_ttl_is_refused_beyond_its_bounds_and_taken_as_it_is_within() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    for (ttl_ms, taken) in
        [(999, false), (1_000, true), (1_001, true), (300_000, true), (300_001, false), (0, false)]
    {
        let request = RegisterRequest {
            ttl: Some(millis(ttl_ms)),
            ..register_request(instance("orders", &ttl_ms.to_string()))
        };
        match registry.register(request).await {
            Ok(answer) => {
                assert!(taken, "{ttl_ms} ms is taken");
                let answer = answer.into_inner();
                let expected = f64::from(u32::try_from(ttl_ms).expect("small")) / 1000.0;
                assert!((seconds(answer.ttl) - expected).abs() < 1e-9, "{ttl_ms} ms is kept");
                let interval = seconds(answer.heartbeat_interval);
                assert!((interval - expected / 3.0).abs() < 1e-6, "{interval} for {ttl_ms} ms");
            }
            Err(status) => {
                assert!(!taken, "{ttl_ms} ms is refused: {status}");
                assert_eq!(status.code(), Code::InvalidArgument);
                assert_eq!(bad_fields(&status), ["ttl"]);
            }
        }
    }
}

#[tokio::test]
async fn a_grace_within_the_ttl_is_taken() {
    let server = TestServer::start().await;
    for (ttl_ms, grace_ms) in [(1_000, 0), (1_000, 1_000), (300_000, 300_000), (2_000, 1_999)] {
        let request = RegisterRequest {
            ttl: Some(millis(ttl_ms)),
            disconnect_grace: Some(millis(grace_ms)),
            ..register_request(instance("orders", ""))
        };
        server.registry().register(request).await.expect("taken");
    }
    // The default of 3 s is more than this TTL, and no reason to refuse it.
    let request =
        RegisterRequest { ttl: Some(millis(1_000)), ..register_request(instance("orders", "")) };
    server.registry().register(request).await.expect("taken");
}

#[tokio::test]
async fn a_take_over_fences_off_the_old_lease() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let old = register(&mut registry, instance("orders", "a")).await.lease_id;
    let new = register(&mut registry, instance("orders", "a")).await.lease_id;
    assert_ne!(old, new);

    let heartbeat = HeartbeatRequest { lease_ids: vec![old, new] };
    let unknown = registry.heartbeat(heartbeat).await.expect("answered").into_inner();
    assert_eq!(unknown.unknown_lease_ids, [old]);

    let request = update(old, &["weight"], weighing(7));
    let refused = registry.update(request).await.expect_err("fenced");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let refused = registry.deregister(by_lease(old)).await.expect_err("fenced");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.get_details_precondition_failure().is_some());

    let there = resolve_all(&mut server.discovery(), "orders").await.instances;
    assert_eq!(there[0].weight, Some(100), "the fenced lease changed nothing");
    registry.update(update(new, &["weight"], weighing(7))).await.expect("the new lease holds");
    registry.deregister(by_lease(new)).await.expect("the new lease holds");
}

#[tokio::test]
async fn each_of_many_take_overs_fences_off_all_before() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let mut leases = Vec::new();
    for weight in 0..20 {
        let taking = Instance { weight: Some(weight / 2), ..instance("orders", "a") };
        leases.push(register(&mut registry, taking).await.lease_id);
    }
    let last = leases.pop().expect("a lease");
    let heartbeat = HeartbeatRequest { lease_ids: leases.clone() };
    let unknown = registry.heartbeat(heartbeat).await.expect("answered").into_inner();
    assert_eq!(unknown.unknown_lease_ids, leases);
    for lease in leases {
        let refused = registry.deregister(by_lease(lease)).await.expect_err("fenced");
        assert_eq!(refused.code(), Code::FailedPrecondition);
    }
    assert_eq!(server.status().await.instances, 1);
    registry.deregister(by_lease(last)).await.expect("the last lease holds");
}

#[tokio::test]
async fn watchers_see_nothing_of_a_take_over_with_the_same_content() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let first = register(&mut registry, placed("orders", "a", "eu-1", "1")).await;
    let mut follower = Follower::ready(&mut server.discovery(), watch_of(&["orders"])).await;
    let second = register(&mut registry, placed("orders", "a", "eu-1", "1")).await;
    assert_eq!(second.instance, first.instance);
    assert_eq!(second.cursor, first.cursor, "it takes no revision");
    // The next that the watcher hears of is the marker.
    let marker = register(&mut registry, instance("orders", "marker")).await;
    let change = follower.next_change().await;
    assert_eq!(change.instance, marker.instance);
    assert_eq!(change.revision, revision(first.cursor.as_ref()) + 1);
}

#[tokio::test]
async fn a_take_over_with_other_content_is_one_update_that_says_replaced() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let first = register(&mut registry, placed("orders", "a", "eu-1", "1")).await;
    let mut follower = Follower::ready(&mut server.discovery(), watch_of(&["orders"])).await;
    let second = register(&mut registry, placed("orders", "a", "eu-1", "2")).await;
    register(&mut registry, instance("orders", "marker")).await;
    let changes = follower.next_changes(2).await;
    assert_eq!(changes[0].kind(), ChangeKind::Updated);
    assert_eq!(changes[0].reason(), ChangeReason::Replaced);
    assert_eq!(changes[0].instance, second.instance);
    let (first, second) = (first.instance.expect("one"), second.instance.expect("one"));
    assert_eq!(second.created_revision, first.created_revision);
    assert_eq!(second.registered_at, first.registered_at);
    assert_eq!(second.modified_revision, 2);
    assert_eq!(changes[1].kind(), ChangeKind::Added);
}

#[tokio::test]
async fn a_heartbeat_tells_which_leases_do_not_live() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let lease = register(&mut registry, instance("orders", "a")).await.lease_id;
    let gone = register(&mut registry, instance("orders", "b")).await.lease_id;
    registry.deregister(by_lease(gone)).await.expect("gone");
    let lease_ids = vec![0, lease, 1, u64::MAX, gone, lease];
    let answer = registry.heartbeat(HeartbeatRequest { lease_ids }).await.expect("answered");
    assert_eq!(answer.into_inner().unknown_lease_ids, [0, 1, u64::MAX, gone]);
    let nothing = registry.heartbeat(HeartbeatRequest::default()).await.expect("answered");
    assert!(nothing.into_inner().unknown_lease_ids.is_empty());
}

#[tokio::test]
async fn keep_alive_answers_each_request_in_order() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let lease = register(&mut registry, instance("orders", "a")).await.lease_id;
    let (requests, outgoing) = mpsc::channel(64);
    let answers = registry.keep_alive(ReceiverStream::new(outgoing)).await.expect("open");
    let mut answers = answers.into_inner();
    // All at once, and none of the unknown leases twice: the answers tell their requests.
    for number in 1..=50 {
        let lease_ids = vec![lease, number];
        requests.send(KeepAliveRequest { lease_ids }).await.expect("sent");
    }
    for number in 1..=50 {
        let answer = soon("an answer", answers.message()).await.expect("open").expect("an answer");
        assert_eq!(answer.unknown_lease_ids, [number]);
    }
    drop(requests);
    let end = soon("the end", answers.message()).await.expect("no error");
    assert_eq!(end, None, "the stream ends with its requests");
}

#[tokio::test]
async fn an_update_changes_what_its_mask_names_and_nothing_else() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let entry = |key: &str| (key.to_owned(), key.to_owned());
    let before = Instance {
        weight: Some(5),
        metadata: BTreeMap::from([entry("old"), entry("both")]),
        ..placed("orders", "a", "eu-1", "1")
    };
    let lease = register(&mut registry, before).await.lease_id;
    let all = Instance {
        status: Status::Draining.into(),
        weight: Some(9),
        metadata: BTreeMap::from([entry("both"), entry("new")]),
        // Not in any mask, so not even looked at.
        host: "not a host".into(),
        port: 0,
        ..placed("other", "", "eu-2", "2")
    };
    let mut expected = resolve_all(&mut server.discovery(), "orders").await.instances.remove(0);
    for path in ["status", "weight", "metadata", "version", "zone"] {
        let answer = registry.update(update(lease, &[path], all.clone())).await.expect("updated");
        let answer = answer.into_inner();
        match path {
            "status" => expected.status = all.status,
            "weight" => expected.weight = all.weight,
            "metadata" => expected.metadata = all.metadata.clone(),
            "version" => expected.version = all.version.clone(),
            _ => expected.zone = all.zone.clone(),
        }
        expected.modified_revision += 1;
        assert_eq!(answer.instance.as_ref(), Some(&expected), "{path}");
        assert_eq!(revision(answer.cursor.as_ref()), expected.modified_revision);
        let read = resolve_all(&mut server.discovery(), "orders").await;
        assert_eq!(read.instances, [expected.clone()], "a read after the answer sees it");
    }
    // All at once, and back to what is left open.
    let paths = ["zone", "version", "metadata", "weight"];
    let answer = registry.update(update(lease, &paths, Instance::default())).await.expect("taken");
    let made = answer.into_inner().instance.expect("an instance");
    assert_eq!((made.zone.as_str(), made.version.as_str(), made.weight), ("", "", Some(100)));
    assert!(made.metadata.is_empty());
    assert_eq!(made.modified_revision, 7, "one update is one change");
}

#[tokio::test]
async fn an_operator_updates_by_name() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    register(&mut registry, instance("orders", "a")).await;
    let draining = Instance { status: Status::Draining.into(), ..Instance::default() };
    let request = update_named("orders", "a", &["status"], draining);
    let answer = registry.update(request).await.expect("updated").into_inner();
    assert_eq!(answer.instance.expect("an instance").status(), Status::Draining);
}

#[tokio::test]
async fn an_update_that_changes_nothing_takes_no_revision_and_wakes_nobody() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let before = register(&mut registry, placed("orders", "a", "eu-1", "1")).await;
    let mut follower = Follower::ready(&mut server.discovery(), watch_of(&["orders"])).await;
    let same = placed("orders", "a", "eu-1", "1");
    let paths = ["zone", "version", "weight", "metadata"];
    for request in
        [update(before.lease_id, &paths, same.clone()), update_named("orders", "a", &paths, same)]
    {
        let answer = registry.update(request).await.expect("taken").into_inner();
        assert_eq!(answer.instance, before.instance);
        assert_eq!(answer.cursor, before.cursor);
    }
    let marker = register(&mut registry, instance("orders", "marker")).await;
    assert_eq!(follower.next_change().await.instance, marker.instance);
    assert_eq!(revision(marker.cursor.as_ref()), 2);
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let lease = register(&mut registry, instance("orders", "a")).await.lease_id;
    registry.deregister(by_lease(lease)).await.expect("gone");
    let never = 12_345;
    for lease in [lease, never] {
        let request = update(lease, &["weight"], weighing(1));
        let refused = registry.update(request).await.expect_err("not there");
        assert_eq!(refused.code(), Code::NotFound, "{refused}");
        let refused = registry.deregister(by_lease(lease)).await.expect_err("not there");
        assert_eq!(refused.code(), Code::NotFound, "{refused}");
    }
    for (service, id) in [("orders", "a"), ("orders", "b"), ("nothing", "a")] {
        let request = update_named(service, id, &["weight"], weighing(1));
        let refused = registry.update(request).await.expect_err("not there");
        assert_eq!(refused.code(), Code::NotFound, "{refused}");
        let refused = registry.deregister(by_name(service, id)).await.expect_err("not there");
        assert_eq!(refused.code(), Code::NotFound, "{refused}");
    }
    assert_eq!(server.status().await.revision, 2, "refusals take no revision");
}

#[tokio::test]
async fn the_reason_of_a_removal_tells_whose_decision_it_was() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let own = register(&mut registry, instance("orders", "own")).await;
    register(&mut registry, instance("orders", "evicted")).await;
    let mut follower = Follower::ready(&mut server.discovery(), watch_of(&["orders"])).await;
    let answer = registry.deregister(by_lease(own.lease_id)).await.expect("gone").into_inner();
    assert_eq!(revision(answer.cursor.as_ref()), 3);
    registry.deregister(by_name("orders", "evicted")).await.expect("gone");
    let changes = follower.next_changes(2).await;
    let seen: Vec<_> = changes.iter().map(|change| (change.kind(), change.reason())).collect();
    assert_eq!(
        seen,
        [
            (ChangeKind::Removed, ChangeReason::Deregistered),
            (ChangeKind::Removed, ChangeReason::Evicted)
        ]
    );
    let last_known = Instance { modified_revision: 3, ..own.instance.expect("an instance") };
    assert_eq!(changes[0].instance, Some(last_known));
    assert!(follower.state.is_empty());
    assert!(resolve_all(&mut server.discovery(), "orders").await.instances.is_empty());
}

#[tokio::test]
async fn an_identity_that_comes_back_is_new() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let first = register(&mut registry, instance("orders", "a")).await;
    registry.deregister(by_lease(first.lease_id)).await.expect("gone");
    let second = register(&mut registry, instance("orders", "a")).await;
    assert_ne!(first.lease_id, second.lease_id);
    assert_eq!(second.instance.expect("an instance").created_revision, 3);
    let heartbeat = HeartbeatRequest { lease_ids: vec![first.lease_id, second.lease_id] };
    let unknown = registry.heartbeat(heartbeat).await.expect("answered").into_inner();
    assert_eq!(unknown.unknown_lease_ids, [first.lease_id]);
}

#[tokio::test]
async fn resolve_gives_what_takes_traffic_unless_asked_for_all() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let statuses = [Status::Starting, Status::Up, Status::Draining, Status::Down];
    for status in statuses {
        let id = status.as_str_name();
        let standing = Instance { status: status.into(), ..instance("orders", id) };
        register(&mut registry, standing).await;
    }
    let request = ResolveRequest { service: "orders".into(), ..ResolveRequest::default() };
    let serving = server.discovery().resolve(request).await.expect("resolved").into_inner();
    assert_eq!(ids(&serving.instances), ["STATUS_UP"]);
    let all = resolve_all(&mut server.discovery(), "orders").await;
    let sorted = ["STATUS_DOWN", "STATUS_DRAINING", "STATUS_STARTING", "STATUS_UP"];
    assert_eq!(ids(&all.instances), sorted, "in order of their ids");
    assert_eq!(revision(all.cursor.as_ref()), 4);
}

#[tokio::test]
async fn an_unknown_service_is_an_empty_answer() {
    let server = TestServer::start().await;
    register(&mut server.registry(), instance("orders", "a")).await;
    let answer = resolve_all(&mut server.discovery(), "nothing").await;
    assert!(answer.instances.is_empty());
    assert_eq!(revision(answer.cursor.as_ref()), 1);
}

#[tokio::test]
async fn all_that_a_filter_gives_must_match() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let metadata = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".into(), "2".into())]);
    for zone in ["", "z1", "z2"] {
        for version in ["", "v1"] {
            let id = format!("{zone}/{version}");
            let with = Instance { metadata: metadata.clone(), ..placed("s", &id, zone, version) };
            register(&mut registry, with).await;
        }
    }
    let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let entry = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let none = BTreeMap::new;
    for (zones, versions, metadata, expected) in [
        (texts(&[]), texts(&[]), none(), texts(&["/", "/v1", "z1/", "z1/v1", "z2/", "z2/v1"])),
        (texts(&["z1"]), texts(&[]), none(), texts(&["z1/", "z1/v1"])),
        (texts(&["z2", "z1"]), texts(&["v1"]), none(), texts(&["z1/v1", "z2/v1"])),
        (texts(&["z2", "z9"]), texts(&["v1"]), entry("a", "1"), texts(&["z2/v1"])),
        (texts(&[""]), texts(&[]), none(), texts(&["/", "/v1"])),
        (texts(&[]), texts(&[""]), metadata.clone(), texts(&["/", "z1/", "z2/"])),
        (texts(&[]), texts(&[]), entry("a", "2"), texts(&[])),
        (texts(&[]), texts(&[]), entry("c", ""), texts(&[])),
        (texts(&["z"]), texts(&[]), none(), texts(&[])),
    ] {
        let filter = Filter { zones, versions, metadata };
        let request = ResolveRequest {
            service: "s".into(),
            filter: Some(filter.clone()),
            all_statuses: true,
            ..ResolveRequest::default()
        };
        let found = server.discovery().resolve(request.clone()).await.expect("resolved");
        assert_eq!(ids(&found.into_inner().instances), expected, "{filter:?}");
        let serving = ResolveRequest { all_statuses: false, ..request };
        let found = server.discovery().resolve(serving).await.expect("resolved").into_inner();
        assert_eq!(ids(&found.instances), expected, "{filter:?}");
    }
}

#[tokio::test]
async fn services_come_page_by_page_with_their_counts() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let mut expected = Vec::new();
    for number in 0..23 {
        let name = format!("service-{number:02}");
        let (mut instances, mut up) = (0, 0);
        for id in 0..=(number % 3) {
            let status = if id == 1 { Status::Down } else { Status::Up };
            let id = id.to_string();
            register(&mut registry, Instance { status: status.into(), ..instance(&name, &id) })
                .await;
            instances += 1;
            up += u32::from(status == Status::Up);
        }
        expected.push((name, instances, up));
    }
    let elsewhere = Instance { namespace: "other".into(), ..instance("elsewhere", "a") };
    register(&mut registry, elsewhere).await;
    let mut discovery = server.discovery();
    for page_size in [0, 1, 5, 22, 23, 24, 1000] {
        let mut listed = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListServicesRequest { page_size, page_token, ..Default::default() };
            let page = discovery.list_services(request).await.expect("a page").into_inner();
            assert_eq!(revision(page.cursor.as_ref()), server.status().await.revision);
            let most = if page_size == 0 { 100 } else { page_size };
            assert!(page.services.len() <= most as usize);
            for service in page.services {
                assert_eq!(service.namespace, "default");
                listed.push((service.name, service.instances, service.up));
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
            assert!(listed.len() <= expected.len(), "the pages have no end");
        }
        assert_eq!(listed, expected, "in pages of {page_size}");
    }
}

#[tokio::test]
async fn a_page_of_services_holds_while_services_come_and_go() {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    for name in ["a", "c", "e"] {
        register(&mut registry, instance(name, "1")).await;
    }
    let request = ListServicesRequest { page_size: 2, ..Default::default() };
    let page = server.discovery().list_services(request).await.expect("a page").into_inner();
    registry.deregister(by_name("c", "1")).await.expect("gone");
    register(&mut registry, instance("d", "1")).await;
    register(&mut registry, instance("b", "1")).await;
    let request = ListServicesRequest {
        page_size: 2,
        page_token: page.next_page_token,
        ..Default::default()
    };
    let page = server.discovery().list_services(request).await.expect("a page").into_inner();
    let names: Vec<_> = page.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["d", "e"]);
}

#[tokio::test]
async fn the_status_tells_how_the_server_stands() {
    let before = SystemTime::now();
    let server = TestServer::start().await;
    let empty = server.status().await;
    assert_eq!((empty.revision, empty.instances, empty.services, empty.leases), (0, 0, 0, 0));
    assert_eq!(empty.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(empty.store, "memory");
    assert!(empty.protection.is_empty());
    let started_at = SystemTime::try_from(empty.started_at.expect("a time")).expect("valid");
    let apart =
        started_at.duration_since(before).unwrap_or_else(|error| error.duration()).as_secs();
    assert!(apart < 60, "started {apart} s apart from now");

    let mut registry = server.registry();
    for (service, id) in [("orders", "a"), ("orders", "b"), ("carts", "a")] {
        register(&mut registry, instance(service, id)).await;
    }
    let follower = Follower::ready(&mut server.discovery(), watch_of(&[])).await;
    let status = server.status().await;
    assert_eq!((status.revision, status.instances, status.services), (3, 3, 2));
    assert_eq!((status.leases, status.watchers), (3, 1));
    assert_eq!(status.history_id, empty.history_id);
    drop(follower);
    registry.deregister(by_name("carts", "a")).await.expect("gone");
    // The end of a watch has to travel, so it is waited for.
    let gone = async {
        while server.status().await.watchers != 0 {
            tokio::task::yield_now().await;
        }
    };
    soon("the watch's end", gone).await;
    let status = server.status().await;
    assert_eq!((status.revision, status.instances, status.services, status.leases), (4, 2, 1, 2));
}

#[tokio::test]
async fn each_memory_registry_has_a_history_of_its_own() {
    let (first, second) = (TestServer::start().await, TestServer::start().await);
    assert_ne!(first.status().await.history_id, second.status().await.history_id);
}

#[tokio::test]
async fn a_store_that_keeps_nothing_has_no_backup() {
    let server = TestServer::start().await;
    let refused = server.admin().backup(BackupRequest {}).await.expect_err("nothing to back up");
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_read_after_an_answered_write_sees_it_on_any_connection() {
    let server = TestServer::start().await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let mut registry = server.registry();
        let other = crate::support::channel_to(server.address).await;
        writers.spawn(async move {
            let mut discovery =
                crate::support::proto::discovery_client::DiscoveryClient::new(other);
            for round in 0..100 {
                // All writers share one service.
                let id = format!("{writer}-{round}");
                let added = register(&mut registry, instance("orders", &id)).await;
                let read = resolve_all(&mut discovery, "orders").await;
                assert!(ids(&read.instances).contains(&id.as_str()), "{id} is there");
                assert!(revision(read.cursor.as_ref()) >= revision(added.cursor.as_ref()));
                let request = update(added.lease_id, &["weight"], weighing(round));
                let updated = registry.update(request).await.expect("updated").into_inner();
                let read = resolve_all(&mut discovery, "orders").await;
                assert!(read.instances.contains(&updated.instance.expect("one")), "{id} is new");
                if round % 2 == 0 {
                    registry.deregister(by_lease(added.lease_id)).await.expect("gone");
                    let read = resolve_all(&mut discovery, "orders").await;
                    assert!(!ids(&read.instances).contains(&id.as_str()), "{id} is gone");
                }
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.expect("a writer finds what it wrote");
    }
    assert_eq!(server.status().await.instances, 200);
}
