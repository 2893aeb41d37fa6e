//! A lease is its service's: with the token of another one nothing renews, breaks, changes or
//! removes it, or shows that it exists (S3).

use tonic::{Code, Status};
use tonic_types::StatusExt;
use waypost::model::LeaseId;
use waypost_client::proto::{DeregisterRequest, Instance, UpdateRequest};
use waypost_testing::registry::ids;

use super::support::{Place, Tenant, serve, token_table};
use crate::support::TestServer;

/// Longer than any test. A stream that breaks while the machine stalls leaves a third of it.
const LONG: u64 = 60_000;
const TENANTS: [&str; 3] = ["orders", "payments", "admin"];
const ADMIN: &str = "[[allow]]\nwho = 'token/admin'\nmay = ['register', 'discover']\non = '*/*'\n";

/// A policy in which tokens may register and discover these services of `shop`.
fn policy(rights: &[(&str, &str)]) -> String {
    let tokens: String = TENANTS.iter().map(|name| token_table(name, "")).collect();
    let rule = |(name, service): &(&str, &str)| {
        let may = "may = ['register', 'discover']";
        format!("[[allow]]\nwho = 'token/{name}'\n{may}\non = 'shop/{service}'\n")
    };
    format!("{ADMIN}{}{tokens}", rights.iter().map(rule).collect::<String>())
}

/// A server with two services, and an operator.
struct World {
    place: Place,
    server: TestServer,
    orders: Tenant,
    payments: Tenant,
    admin: Tenant,
}

impl World {
    async fn start() -> Self {
        let place = Place::new(&policy(&[("orders", "orders"), ("payments", "payments")]));
        let server = serve(place.clear_text()).await;
        let orders = Tenant::connect(&server, "orders").await;
        let payments = Tenant::connect(&server, "payments").await;
        let admin = Tenant::connect(&server, "admin").await;
        Self { place, server, orders, payments, admin }
    }
}

async fn update(tenant: &Tenant, lease_id: u64) -> Result<(), Status> {
    let request = UpdateRequest {
        lease_id,
        instance: Some(Instance { weight: Some(7), ..Instance::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["weight".to_owned()] }),
        ..UpdateRequest::default()
    };
    tenant.registry().update(request).await.map(drop)
}

async fn deregister(tenant: &Tenant, lease_id: u64) -> Result<(), Status> {
    let request = DeregisterRequest { lease_id, ..DeregisterRequest::default() };
    tenant.registry().deregister(request).await.map(drop)
}

/// Returns everything that a refusal shows, without the number of the lease.
fn shown(refused: &Status, lease: u64) -> (Code, String, Vec<u8>, Vec<String>) {
    let without = |text: &str| text.replace(&lease.to_string(), "N");
    let headers = refused.metadata().clone().into_headers();
    let names = headers.keys().map(ToString::to_string).collect();
    let details = without(&String::from_utf8_lossy(refused.details())).into_bytes();
    (refused.code(), without(refused.message()), details, names)
}

/// Ids that a caller can compute from a lease.
fn computed(lease: u64) -> Vec<u64> {
    let id = LeaseId::from_bits(lease);
    let (server, generation, slot) = (id.server(), id.generation(), id.slot());
    let of = |server, generation, slot| LeaseId::new(server, generation, slot).bits();
    let ids = [
        lease,
        of(server, generation + 1, slot),
        of(server, generation.wrapping_sub(1), slot),
        of(server, 0, slot),
        of(server.wrapping_add(1), generation, slot),
        of(server, generation, slot + 1),
        of(server, generation, slot.wrapping_sub(1)),
        lease ^ (1 << 63),
        lease.swap_bytes(),
        1,
        u64::MAX,
    ];
    // 0 stands for no lease.
    ids.into_iter().filter(|id| *id != 0).collect()
}

#[tokio::test]
async fn lease_of_another_service_is_as_one_that_never_was() {
    let World { orders, payments, admin, server: _server, place: _place } = World::start().await;
    let lease = orders.register("orders", "a", LONG, LONG).await;
    let own = payments.register("payments", "p", LONG, LONG).await;
    let before = orders.instances("orders").await;
    let mut stream = payments.keep_alive().await;
    // Far away from the slots that were ever used.
    let never = LeaseId::new(1, 0x1234_5678, 0xff_fff0).bits();
    let unknown_update = shown(&update(&payments, never).await.expect_err("none"), never);
    let unknown_removal = shown(&deregister(&payments, never).await.expect_err("none"), never);
    assert_eq!(unknown_update.0, Code::NotFound);
    for id in computed(lease) {
        assert_eq!(payments.heartbeat(&[id, own]).await, [id]);
        assert_eq!(payments.heartbeat(&[own, id]).await, [id], "after one of its own");
        assert_eq!(stream.renew(&[own, id]).await, [id]);
        let refused = update(&payments, id).await.expect_err("not its own");
        assert_eq!(shown(&refused, id), unknown_update, "{id}");
        let refused = deregister(&payments, id).await.expect_err("not its own");
        assert_eq!(shown(&refused, id), unknown_removal, "{id}");
    }
    drop(stream);
    // Nor by the name that it has.
    let named = DeregisterRequest {
        namespace: "shop".to_owned(),
        service: "orders".to_owned(),
        id: "a".to_owned(),
        ..DeregisterRequest::default()
    };
    let refused = payments.registry().deregister(named.clone()).await.expect_err("not its own");
    let absent = DeregisterRequest { id: "nothing".to_owned(), ..named };
    let unknown = payments.registry().deregister(absent).await.expect_err("none");
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(refused.message(), unknown.message());
    let [refused, unknown] = [refused, unknown].map(|status| status.get_details_error_info());
    assert_eq!(refused.map(|info| info.metadata), unknown.map(|info| info.metadata));

    assert_eq!(orders.instances("orders").await, before);
    assert_eq!(ids(&admin.instances("payments").await), ["p"]);
    assert_eq!(orders.heartbeat(&[lease, own]).await, [own]);
    update(&orders, lease).await.expect("its own");
    deregister(&orders, lease).await.expect("its own");
}

#[tokio::test]
async fn renewals_of_another_service_do_not_keep_an_instance() {
    let World { orders, payments, server: _server, place: _place, .. } = World::start().await;
    let lease = orders.register("orders", "a", 1_000, 0).await;
    let own = payments.register("payments", "p", 1_000, 0).await;
    let mut stream = payments.keep_alive().await;
    let renew = async {
        loop {
            assert_eq!(payments.heartbeat(&[own, lease]).await, [lease]);
            assert_eq!(stream.renew(&[lease, own]).await, [lease]);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = renew => {}
        () = orders.sees("orders", 0) => {}
    }
    // The same renewals kept this one.
    assert_eq!(ids(&payments.instances("payments").await), ["p"]);
}

#[tokio::test]
async fn broken_stream_of_another_service_shortens_no_lease() {
    let World { orders, payments, admin, server, .. } = World::start().await;
    let lease = orders.register("orders", "a", LONG, 10).await;
    let mut owner = orders.keep_alive().await;
    assert!(owner.renew(&[lease]).await.is_empty());
    let own = payments.register("payments", "p", LONG, 200).await;
    // A connection of its own, which breaks with all that is on it.
    let breaking = Tenant::connect(&server, "payments").await;
    let mut stream = breaking.keep_alive().await;
    assert_eq!(stream.renew(&[lease, own, lease]).await, [lease, lease]);
    drop((stream, breaking));
    admin.sees("payments", 0).await;
    // Its grace would have ended before the other one's.
    assert_eq!(ids(&admin.instances("orders").await), ["a"]);
    drop(owner);
    admin.sees("orders", 0).await;
}

/// Registers instances of `payments` until one has the slot of a lease.
async fn take_slot(payments: &Tenant, lease: u64, grace: u64) -> u64 {
    let slot = LeaseId::from_bits(lease).slot();
    for number in 0..200 {
        let taken = payments.register("payments", &format!("p{number}"), LONG, grace).await;
        if LeaseId::from_bits(taken).slot() == slot {
            return taken;
        }
    }
    panic!("no lease got slot {slot} again");
}

#[tokio::test]
async fn slot_that_another_service_got_is_out_of_reach() {
    let World { orders, payments, admin, server, .. } = World::start().await;
    let old = orders.register("orders", "a", LONG, 0).await;
    let breaking = Tenant::connect(&server, "orders").await;
    let mut stream = breaking.keep_alive().await;
    assert!(stream.renew(&[old]).await.is_empty());
    assert!(orders.heartbeat(&[old]).await.is_empty(), "its session remembers the slot");
    deregister(&orders, old).await.expect("its own");
    let taken = take_slot(&payments, old, 0).await;
    let there = admin.instances("payments").await;
    for id in computed(old).into_iter().chain(computed(taken)) {
        assert_eq!(orders.heartbeat(&[id]).await, [id]);
        assert_eq!(stream.renew(&[id]).await, [id]);
        // Not fenced off, as an older lease of its own service would be.
        assert_eq!(update(&orders, id).await.expect_err("none").code(), Code::NotFound);
        assert_eq!(deregister(&orders, id).await.expect_err("none").code(), Code::NotFound);
    }
    // The stream had renewed the slot in its time. What it breaks now shows when it is done.
    let last = orders.register("orders", "b", LONG, 0).await;
    assert!(stream.renew(&[last]).await.is_empty());
    drop((stream, breaking));
    admin.sees("orders", 0).await;
    assert_eq!(admin.instances("payments").await, there);
    assert!(payments.heartbeat(&[taken]).await.is_empty());
}

#[tokio::test]
async fn lease_follows_the_rights_of_a_later_policy() {
    let World { place, orders, payments, admin, server } = World::start().await;
    let lease = orders.register("orders", "a", LONG, 0).await;
    let short = orders.register("orders", "b", 2_000, 0).await;
    let moving = Tenant::connect(&server, "orders").await;
    let mut stream = moving.keep_alive().await;
    assert!(stream.renew(&[lease, short]).await.is_empty());
    let epoch = admin.epoch().await;
    // The two change their services.
    place.write_policy(&policy(&[("orders", "payments"), ("payments", "orders")]));
    admin.epoch_after(epoch).await;
    assert_eq!(stream.renew(&[lease, short]).await, [lease, short], "the stream goes on");
    assert_eq!(orders.heartbeat(&[lease]).await, [lease]);
    assert_eq!(update(&orders, lease).await.expect_err("no more").code(), Code::NotFound);
    assert_eq!(deregister(&orders, lease).await.expect_err("no more").code(), Code::NotFound);
    let own = orders.register("payments", "p", LONG, 0).await;
    assert!(stream.renew(&[own]).await.is_empty());
    // Its break is none of the leases that it renewed before.
    drop((stream, moving));
    admin.sees("payments", 0).await;
    assert!(payments.heartbeat(&[lease]).await.is_empty());
    // Without an allowed renewal the other one ends with its TTL.
    let gone = async {
        loop {
            if ids(&admin.instances("orders").await) == ["a"] {
                break;
            }
            assert_eq!(orders.heartbeat(&[short]).await, [short]);
        }
    };
    waypost_testing::wait::soon("the end of a TTL", gone).await;
    update(&payments, lease).await.expect("its own now");
    deregister(&payments, lease).await.expect("its own now");
}
