//! Views of services, and their watches.

use waypost_client::{Instance, NoInstance, PickContext, ReadyError, Service};

use super::{client, registry, soon, until_seen};
use crate::support::{Fake, Network};

#[tokio::test]
async fn view_follows_and_outlives_the_registry() {
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

    // The registry restarts with an empty memory, and only one of the two registers.
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
async fn ready_returns_the_refusal_of_a_watch() {
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
async fn refused_watch_keeps_the_connection() {
    let (network, _fake, _process, client) = registry();
    soon(client.service("orders").ready()).await.unwrap();
    let refused = client.service("no name");
    soon(refused.ready()).await.unwrap_err();
    soon(client.service("others").ready()).await.unwrap();
    assert_eq!(network.connections(), 1);
}

#[tokio::test]
async fn fixed_service_has_one_view() {
    let service = Service::fixed([Instance::default()]);
    soon(service.ready()).await.unwrap();
    let mut changes = service.changes();
    assert!(soon(changes.next()).await.is_some());
    assert!(soon(changes.next()).await.is_none());
}

#[test]
fn watch_reports_the_end_of_its_runtime_and_can_be_started_again() {
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
