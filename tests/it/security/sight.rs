//! A namespace is cut to what a caller may see: lists, lookups, a watch and its resume agree, and
//! follow each later policy.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use tonic::{Code, transport::Channel};
use waypost_client::proto::{
    Cursor, DeregisterRequest, Instance, ListServicesRequest, ResolveRequest, WatchRequest,
    discovery_client::DiscoveryClient,
};
use waypost_testing::{
    registry::{Identity, identity},
    seed::seed,
    watch::Follower,
};

use super::support::{Place, Tenant, connect_tls, reason, serve, token_table};
use crate::support::TestServer;

const SERVICES: [&str; 6] = ["cart", "cart-2", "orders", "orders-2", "payments", "search"];
const LONG: u64 = 300_000;
const READER: &str = "spiffe://test/reader";
const VISIBLE: [&str; 3] = ["orders", "orders-2", "search"];

/// A policy in which the reader sees these targets, and the operator everything.
fn policy(targets: &str) -> String {
    let reader = format!("[[allow]]\nwho = '{READER}'\nmay = 'discover'\non = {targets}\n");
    let everything = "['discover', 'register', 'operate', 'status']";
    let rule = |who: &str| format!("[[allow]]\nwho = '{who}'\nmay = {everything}\non = '*/*'\n");
    let all = rule("token/admin") + &rule("spiffe://test/admin");
    let reader = if targets.is_empty() { "" } else { reader.as_str() };
    format!("{reader}{all}{}", token_table("admin", ""))
}

const PART: &str = "['shop/orders', 'shop/orders-*', 'shop/search', 'other/*']";

/// A server with instances, the reader, and a caller that sees everything.
struct World {
    place: Place,
    _server: TestServer,
    reader: DiscoveryClient<Channel>,
    everything: DiscoveryClient<Channel>,
    admin: Tenant,
}

impl World {
    async fn start() -> Self {
        let place = Place::new(&policy(PART));
        let server = serve(place.with_tls()).await;
        let connect = async |name: &str| {
            let identity = place.authority.issue(name);
            connect_tls(server.address(), place.authority.connector(Some(&identity))).await
        };
        let (reader, all) = (connect(READER).await, connect("spiffe://test/admin").await);
        let admin = Tenant::over(connect_without(&place, &server).await, "admin");
        for service in SERVICES {
            for id in ["a", "b"] {
                admin.register(service, id, LONG, LONG).await;
            }
        }
        let [reader, everything] = [reader, all].map(DiscoveryClient::new);
        Self { place, _server: server, reader, everything, admin }
    }

    /// Puts another policy into force.
    async fn change(&self, targets: &str) {
        let epoch = self.admin.epoch().await;
        self.place.write_policy(&policy(targets));
        self.admin.epoch_after(epoch).await;
    }

    /// Makes random changes; returns the revision after them.
    async fn churn(&self, random: &mut Rng, changes: usize) -> u64 {
        let mut revision = 0;
        for _ in 0..changes {
            let service = SERVICES[random.usize(..SERVICES.len())];
            let id = ["a", "b", "c"][random.usize(..3)];
            if random.bool() {
                self.admin.register(service, id, LONG, LONG).await;
                continue;
            }
            let request = DeregisterRequest {
                namespace: "shop".to_owned(),
                service: service.to_owned(),
                id: id.to_owned(),
                ..DeregisterRequest::default()
            };
            let removed = self.admin.registry().deregister(request).await;
            if let Ok(removed) = removed {
                revision = removed.into_inner().cursor.expect("a cursor").revision;
            }
        }
        // The last change, of a service that the reader does not see.
        let id = format!("last-{revision}-{}", random.u64(..));
        self.admin.register("cart", &id, LONG, LONG).await;
        self.list_all().await.1.expect("a cursor").revision
    }

    async fn list_all(&self) -> (BTreeSet<String>, Option<Cursor>) {
        list(&mut self.everything.clone(), 1_000).await
    }

    /// Returns the instances of these services, by lookups of a caller that sees everything.
    async fn truth(&self, visible: &[&str]) -> BTreeMap<Identity, Instance> {
        let mut truth = BTreeMap::new();
        for service in visible {
            let instances = self.admin.instances(service).await;
            truth.extend(instances.into_iter().map(|one| (identity(&one), one)));
        }
        truth
    }
}

async fn connect_without(place: &Place, server: &TestServer) -> Channel {
    connect_tls(server.address(), place.authority.connector(None)).await
}

fn watch(services: &[&str], resume: Option<Cursor>) -> WatchRequest {
    WatchRequest {
        namespace: "shop".to_owned(),
        services: services.iter().map(|&service| service.to_owned()).collect(),
        resume,
        ..WatchRequest::default()
    }
}

/// Reads all pages of a list; checks the header of each.
async fn list(
    discovery: &mut DiscoveryClient<Channel>,
    page_size: u32,
) -> (BTreeSet<String>, Option<Cursor>) {
    let mut request =
        ListServicesRequest { namespace: "shop".to_owned(), page_size, ..Default::default() };
    let (mut names, mut headers) = (BTreeSet::new(), BTreeSet::new());
    loop {
        let page = discovery.list_services(request.clone()).await.expect("a page");
        headers.insert(page.metadata().get("waypost-visible").cloned());
        let page = page.into_inner();
        assert!(page.services.len() <= page_size as usize);
        assert!(page.services.iter().all(|one| one.namespace == "shop"));
        for service in page.services {
            assert!(names.insert(service.name.clone()), "{} twice", service.name);
        }
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            assert_eq!(headers.len(), 1, "each page is marked like the others");
            return (names, page.cursor);
        }
    }
}

async fn resolve(
    discovery: &mut DiscoveryClient<Channel>,
    service: &str,
) -> Result<Vec<Instance>, tonic::Status> {
    let request = ResolveRequest {
        namespace: "shop".to_owned(),
        service: service.to_owned(),
        all_statuses: true,
        ..ResolveRequest::default()
    };
    discovery.resolve(request).await.map(|resolved| resolved.into_inner().instances)
}

/// Checks that lists and lookups of the reader show what its watch has folded.
async fn agree(world: &World, follower: &Follower, visible: &[&str]) {
    let mut reader = world.reader.clone();
    assert_eq!(follower.state, world.truth(visible).await);
    let seen: BTreeSet<_> = follower.state.keys().map(|(_, service, _)| service.clone()).collect();
    for page_size in [1, 2, 1_000] {
        assert_eq!(list(&mut reader, page_size).await.0, seen, "{page_size}");
    }
    for service in SERVICES {
        let resolved = resolve(&mut reader, service).await;
        if visible.contains(&service) {
            let resolved = resolved.expect("visible").into_iter();
            let resolved: BTreeMap<_, _> = resolved.map(|one| (identity(&one), one)).collect();
            let of_it = |(name, _): &(&Identity, &Instance)| name.1 == service;
            let watched = follower.state.iter().filter(of_it);
            assert_eq!(resolved, watched.map(|(key, one)| (key.clone(), one.clone())).collect());
        } else {
            let refused = resolved.expect_err("not visible");
            assert_eq!(refused.code(), Code::PermissionDenied);
            let refused = reader.watch(watch(&[visible[0], service], None)).await;
            let refused = refused.expect_err("not visible");
            assert_eq!(reason(&refused).as_deref(), Some("NOT_ALLOWED"));
            assert!(refused.message().contains(&format!("shop/{service}")), "{refused}");
        }
    }
}

#[tokio::test]
async fn list_lookup_watch_and_resume_agree_on_what_is_seen() {
    let mut random = Rng::with_seed(seed());
    let world = World::start().await;
    let (mut reader, mut all) = (world.reader.clone(), world.everything.clone());
    let opened = reader.watch(watch(&[], None)).await.expect("a watch");
    assert_eq!(opened.metadata().get("waypost-visible").expect("a mark"), "part");
    let opened = all.watch(watch(&[], None)).await.expect("a watch");
    assert_eq!(opened.metadata().get("waypost-visible"), None);
    let listed = ListServicesRequest { namespace: "shop".to_owned(), ..Default::default() };
    let listed = reader.list_services(listed).await.expect("a page");
    assert_eq!(listed.metadata().get("waypost-visible").expect("a mark"), "part");

    let mut follower = Follower::ready(&mut reader, watch(&[], None)).await;
    agree(&world, &follower, &VISIBLE).await;
    for round in 0..6 {
        let revision = world.churn(&mut random, 20).await;
        // A change of another service brings no message; the next one that is seen does.
        world.admin.register("orders", &format!("seen-{round}"), LONG, LONG).await;
        follower.reach(revision).await;
        while follower.state != world.truth(&VISIBLE).await {
            follower.message().await;
        }
        agree(&world, &follower, &VISIBLE).await;
        assert_eq!(follower.snapshots, usize::from(round == 0), "resumed, not begun anew");
        let resume = watch(&[], follower.cursor.clone());
        let state = std::mem::take(&mut follower.state);
        drop(follower);
        world.churn(&mut random, 20).await;
        world.admin.register("orders", &format!("resumed-{round}"), LONG, LONG).await;
        follower = Follower::resume(&mut reader, resume, state).await;
        while follower.state != world.truth(&VISIBLE).await {
            follower.message().await;
        }
    }
}

#[tokio::test]
async fn sight_that_changes_gives_a_new_snapshot_in_place() {
    let world = World::start().await;
    let mut reader = world.reader.clone();
    let mut follower = Follower::ready(&mut reader, watch(&[], None)).await;
    let mut named = Follower::ready(&mut reader, watch(&["search"], None)).await;
    let mut whole = Follower::ready(&mut world.everything.clone(), watch(&[], None)).await;
    for (targets, visible) in [
        ("['shop/cart', 'shop/search']", &["cart", "search"][..]),
        ("'shop/*'", &SERVICES),
        (PART, &VISIBLE),
    ] {
        let snapshots = follower.snapshots;
        world.change(targets).await;
        while follower.snapshots == snapshots {
            follower.message().await;
        }
        agree(&world, &follower, visible).await;
        for other in [&mut named, &mut whole] {
            assert_eq!(other.snapshots, 1, "the same sight");
        }
    }
    // The same sight under another policy is no change.
    let snapshots = follower.snapshots;
    world.change(&format!("{PART} # again")).await;
    world.admin.register("search", "c", LONG, LONG).await;
    for (follower, snapshots) in [(&mut follower, snapshots), (&mut named, 1), (&mut whole, 1)] {
        assert_eq!(follower.next_change().await.instance.expect("an instance").id, "c");
        assert_eq!(follower.snapshots, snapshots);
    }
    world.change("'other/*'").await;
    for follower in [&mut follower, &mut named] {
        let end = follower.end().await;
        assert_eq!(end.code(), Code::PermissionDenied);
        assert_eq!(reason(&end).as_deref(), Some("NOT_ALLOWED"));
    }
    let refused = reader.watch(watch(&[], None)).await.expect_err("nothing to see");
    assert_eq!(reason(&refused).as_deref(), Some("NOT_ALLOWED"));
    world.admin.register("search", "end", LONG, LONG).await;
    assert_eq!(whole.next_change().await.instance.expect("an instance").id, "end");
}

#[tokio::test]
async fn cursor_from_before_the_policy_begins_a_part_anew() {
    let world = World::start().await;
    let (mut reader, mut all) = (world.reader.clone(), world.everything.clone());
    let part = Follower::ready(&mut reader, watch(&[], None)).await;
    let named = Follower::ready(&mut reader, watch(&["search"], None)).await;
    let whole = Follower::ready(&mut all, watch(&[], None)).await;
    world.change(&format!("{PART} # another")).await;
    world.admin.register("search", "c", LONG, LONG).await;

    let mut again = Follower::resume(&mut reader, watch(&[], part.cursor), part.state).await;
    again.message().await;
    assert_eq!((again.snapshots, again.changes.len()), (1, 0), "begun anew");
    agree(&world, &again, &VISIBLE).await;
    let request = watch(&["search"], named.cursor);
    let mut named = Follower::resume(&mut reader, request, named.state).await;
    assert_eq!(named.next_change().await.instance.expect("an instance").id, "c");
    assert_eq!(named.snapshots, 0, "resumed");
    let mut whole = Follower::resume(&mut all, watch(&[], whole.cursor), whole.state).await;
    let truth = world.truth(&SERVICES).await;
    while whole.state != truth {
        whole.message().await;
    }
    // A cursor from after the policy is good.
    let cursor = again.cursor.clone();
    world.admin.register("search", "d", LONG, LONG).await;
    let mut resumed = Follower::resume(&mut reader, watch(&[], cursor), again.state).await;
    assert_eq!(resumed.next_change().await.instance.expect("an instance").id, "d");
    assert_eq!(resumed.snapshots, 0, "resumed");
}

#[tokio::test]
async fn cursor_of_a_part_does_not_resume_the_whole() {
    let world = World::start().await;
    let mut reader = world.reader.clone();
    let part = Follower::ready(&mut reader, watch(&[], None)).await;
    world.change("'shop/*'").await;
    let mut whole = Follower::resume(&mut reader, watch(&[], part.cursor), part.state).await;
    world.admin.register("search", "c", LONG, LONG).await;
    let revision = world.list_all().await.1.expect("a cursor").revision;
    whole.reach(revision).await;
    agree(&world, &whole, &SERVICES).await;
}
