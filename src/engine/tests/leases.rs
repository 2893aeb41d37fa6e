//! Tests of leases: their start, renewal and expiry, also over a slow or failing store.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::sleep;
use waypost_core::testing::weight;

use super::{
    SeenEvent, TestStore, changes, next_event, snapshot, start, start_with, with_seeds_async,
};
use crate::{
    auth::Caller,
    model::Limits,
    registry::{Patch, Target},
};

#[tokio::test(start_paused = true)]
async fn instance_expires_between_its_ttl_and_100_ms_later() {
    with_seeds_async(4, async |mut random| {
        let test = start();
        for round in 0..20 {
            let ttl_ms = random.u64(1_000..5_000);
            sleep(Duration::from_millis(random.u64(..100))).await;
            let (lease, _) = test.register("s", "a", ttl_ms).await;
            let mut watch = test.watch(&["s"]);
            assert_eq!(next_event(&mut watch).await.0, snapshot(&["a"]));
            for _ in 0..random.u8(..4) {
                sleep(Duration::from_millis(random.u64(..ttl_ms))).await;
                assert_eq!(
                    test.engine.renew(&Caller::unrestricted(), &[lease.bits()]).await,
                    [0_u64; 0]
                );
            }
            let renewed_at = test.clock.tick().0;
            let mut seen = next_event(&mut watch).await.0;
            while seen == SeenEvent::Idle {
                seen = next_event(&mut watch).await.0;
            }
            assert_eq!(seen, changes([("expired", "a")]), "round {round}");
            let lived_ms = test.clock.tick().0 - renewed_at;
            assert!((ttl_ms..=ttl_ms + 100).contains(&lived_ms), "{lived_ms} of {ttl_ms} ms");
            assert_eq!(
                test.engine.renew(&Caller::unrestricted(), &[lease.bits()]).await,
                [lease.bits()]
            );
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn renewal_averts_an_expiry_that_waits_for_the_store() {
    let store = TestStore::default();
    let test = start_with(store.clone(), &Limits::default());
    let (kept, _) = test.register("s", "kept", 2_000).await;
    test.register("s", "lost", 2_000).await;
    let mut watch = test.watch(&["s"]);
    assert_eq!(next_event(&mut watch).await, (snapshot(&["kept", "lost"]), 2));
    store.fail(true);
    sleep(Duration::from_secs(7)).await;
    assert_eq!(test.ids("s"), ["kept", "lost"]);
    assert_eq!(test.engine.renew(&Caller::unrestricted(), &[kept.bits()]).await, [0_u64; 0]);
    store.fail(false);
    let recovered_at = test.clock.tick().0;
    assert_eq!(next_event(&mut watch).await, (changes([("expired", "lost")]), 3));
    assert!(test.clock.tick().0 - recovered_at <= 1_100, "the store is retried every second");
    assert_eq!(next_event(&mut watch).await, (changes([("expired", "kept")]), 4));
    let lived_ms = test.clock.tick().0 - recovered_at;
    assert!((2_000..=2_100).contains(&lived_ms), "{lived_ms} ms");
}

#[tokio::test(start_paused = true)]
async fn lease_starts_once_its_registration_is_durable() {
    let store = TestStore::default();
    let test = start_with(store.clone(), &Limits::default());
    store.commit_ms.store(3_000, Ordering::SeqCst);
    test.register("s", "a", 1_000).await;
    store.commit_ms.store(0, Ordering::SeqCst);
    let answered_at = test.clock.tick().0;
    assert_eq!(answered_at, 3_000);
    let mut watch = test.watch(&["s"]);
    assert_eq!(next_event(&mut watch).await, (snapshot(&["a"]), 1));
    assert_eq!(next_event(&mut watch).await, (changes([("expired", "a")]), 2));
    let lived_ms = test.clock.tick().0 - answered_at;
    assert!((1_000..=1_100).contains(&lived_ms), "{lived_ms} ms");
}

#[tokio::test(start_paused = true)]
async fn leases_are_renewed_during_a_long_commit() {
    let store = TestStore::default();
    let test = start_with(store.clone(), &Limits::default());
    let (lease, _) = test.register("s", "a", 1_000).await;
    store.commit_ms.store(5_000, Ordering::SeqCst);
    let heartbeats = async {
        for _ in 0..10 {
            sleep(Duration::from_millis(500)).await;
            assert_eq!(
                test.engine.renew(&Caller::unrestricted(), &[lease.bits()]).await,
                [0_u64; 0]
            );
        }
    };
    futures_util::join!(test.register("s", "b", 60_000), heartbeats);
    assert_eq!(test.ids("s"), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn update_by_lease_renews_it() {
    let test = start();
    let (lease, _) = test.register("s", "a", 2_000).await;
    for _ in 0..5 {
        sleep(Duration::from_millis(1_500)).await;
        // Also one that changes nothing.
        assert!(test.engine.update_target(Target::Lease(lease), Patch::default()).await.is_ok());
    }
    sleep(Duration::from_millis(1_500)).await;
    // An operator's update does not renew.
    test.update("s", "a", weight(1)).await;
    sleep(Duration::from_millis(600)).await;
    assert!(test.ids("s").is_empty());
}

#[tokio::test(start_paused = true)]
async fn renewal_returns_each_inactive_lease() {
    let test = start();
    let (fenced, _) = test.register("s", "a", 60_000).await;
    let (live, _) = test.register("s", "a", 60_000).await;
    let mut leases = vec![live.bits(); 10_000];
    leases[5_000] = fenced.bits();
    leases[9_999] = 0;
    assert_eq!(test.engine.renew(&Caller::unrestricted(), &leases).await, [fenced.bits(), 0]);
}
