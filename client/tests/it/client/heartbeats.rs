//! Heartbeats of many registrations over one stream.

use waypost_client::{Client, Registered, Registration, RegistrationState};

use super::{an_order, client, nameless, registry, soon, until_seen};
use crate::support::{Fake, Network};

fn many(client: &Client, count: usize) -> Vec<Registered> {
    let registration = |id: usize| Registration::new("orders", "10.0.0.1", 80).id(id.to_string());
    (0..count).map(|id| client.register_in_background(registration(id))).collect()
}

/// Waits until each of them is in a wanted state.
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
async fn thousand_registrations_share_one_stream() {
    let (network, fake, process, client) = registry();
    // None of them has a heartbeat due after the first: they detect the end by the stream alone.
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
async fn missing_heartbeat_response_breaks_the_shared_stream() {
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
async fn shared_stream_lasts_until_the_last_registration_ends() {
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
fn end_of_a_runtime_ends_no_registration_of_another() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_network, fake, _process, client) = registry();
    let (first, second) = (runtime(), runtime());
    let other = first.block_on(async {
        fake.alter(|state| state.interval = 1);
        let other = client.register(nameless()).await.unwrap();
        fake.until(|state| state.renewed.len() == 1).await;
        other
    });
    // The first runtime is idle meanwhile, and is then shut down.
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
async fn client_fails_over_to_another_address() {
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
