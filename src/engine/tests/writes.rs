//! Tests of writes and reads: refusals of the registry, the store and the mailbox; lists of
//! services.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;
use waypost_core::testing::{content, id, key, name, terms, weight};

use super::{
    TestEngine, TestStore, changes, may_discover, may_list, may_read_status, may_register,
    next_event, of, small_log, snapshot, start, start_with, unavailable,
};
use crate::{
    auth::Caller,
    engine::{EngineError, ServiceSummary},
    model::{Limits, Revision, Status},
    registry::{Patch, Refusal, Target},
    store::MemoryStore,
};

#[tokio::test(start_paused = true)]
async fn read_sees_every_answered_write() {
    let test = start();
    for round in 0..50 {
        let instance = format!("i{round:02}");
        let (_, revision) = test.register("s", &instance, 60_000).await;
        assert!(test.ids("s").contains(&instance));
        assert!(test.engine.service(&may_discover("s")).1.revision >= revision);
        let updated = test.update("s", &instance, weight(7)).await;
        let (found, cursor) = test.engine.service(&may_discover("s"));
        let roster = found.unwrap().roster.clone();
        assert_eq!(roster.instances().last().unwrap().content.view().weight, 7);
        assert_eq!((updated, cursor.revision), (revision.next(), revision.next()));
    }
    test.deregister("s", "i07").await;
    assert!(!test.ids("s").contains(&"i07".to_owned()));
    assert_eq!(test.engine.status(&may_read_status()).instances, 49);
}

#[tokio::test(start_paused = true)]
async fn write_that_the_store_rejected_never_appears() {
    let store = TestStore::default();
    let test = start_with(store.clone(), &Limits::default());
    let (lease, _) = test.register("s", "a", 60_000).await;
    let mut watch = test.watch(&["s", "t"]);
    assert_eq!(next_event(&mut watch).await, (snapshot(&["a"]), 1));
    store.fail(true);
    let engine = &test.engine;
    let refused = || Some(EngineError::Store(unavailable()));
    let added = engine.register(may_register(key("t")), id("b"), content(1), terms(60_000)).await;
    assert_eq!(added.err(), refused());
    let taken_over =
        engine.register(may_register(key("s")), id("a"), content(2), terms(60_000)).await;
    assert_eq!(taken_over.err(), refused());
    assert_eq!(engine.update_target(Target::Lease(lease), weight(1)).await.err(), refused());
    assert_eq!(engine.deregister_target(Target::Lease(lease)).await.err(), refused());
    let nothing = |test: &TestEngine| {
        let service = test.engine.service(&may_discover("s")).0.unwrap();
        assert_eq!(service.roster.instances().next().unwrap().content, content(1));
        assert_eq!((test.ids("s"), test.ids("t")), (vec!["a".to_owned()], vec![]));
        assert_eq!(test.revision(), Revision(1));
    };
    nothing(&test);
    store.fail(false);
    sleep(Duration::from_secs(1)).await;
    nothing(&test);
    assert_eq!(
        engine.renew(&Caller::unrestricted(), &[lease.bits()]).await,
        [0_u64; 0],
        "the lease is not fenced"
    );
    test.register("s", "c", 60_000).await;
    assert_eq!(next_event(&mut watch).await, (changes([("added", "c")]), 2));
    assert_eq!(store.committed.lock().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn refusal_of_the_registry_needs_no_store() {
    let store = TestStore::default();
    let test = start_with(store.clone(), &Limits::default());
    store.fail(true);
    let refusal = Refusal::NoSuchInstance { service: key("s"), id: id("a") };
    let answer = test.engine.deregister_target(of("s", "a")).await;
    assert_eq!(answer.err(), Some(EngineError::Refused(refusal)));
}

#[tokio::test(start_paused = true)]
async fn full_mailbox_returns_overloaded() {
    let limits = Limits { queued_writes_max: 4, ..Limits::default() };
    let test = start_with(TestStore::default(), &limits);
    let register = |n: usize| {
        let instance = id(&format!("i{n}"));
        test.engine.register(may_register(key("s")), instance, content(1), terms(60_000))
    };
    // All are submitted before the worker runs.
    let answers = join_all((0..7).map(register)).await;
    let taken = answers.iter().filter(|answer| answer.is_ok()).count();
    let overloaded = |answer: &&Result<_, _>| matches!(answer, Err(EngineError::Overloaded(4)));
    assert_eq!((taken, answers.iter().filter(overloaded).count()), (4, 3));
    assert_eq!(test.ids("s"), ["i0", "i1", "i2", "i3"]);
    assert!(register(9).await.is_ok(), "the mailbox has space again");
}

#[tokio::test(start_paused = true)]
async fn waiting_requests_are_answered_at_the_stop() {
    let test = start_with(TestStore::default(), &Limits::default());
    let register = |n: usize| {
        let instance = id(&format!("i{n}"));
        test.engine.register(may_register(key("s")), instance, content(1), terms(60_000))
    };
    let stop = async { assert!(test.tasks.join(Duration::from_secs(1)).await) };
    let (answers, ()) = futures_util::join!(join_all((0..9).map(register)), stop);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(register(9).await.err(), Some(EngineError::Stopped));
}

#[tokio::test(start_paused = true)]
async fn services_are_listed_in_order_while_they_have_instances() {
    let test = start();
    for service in ["n/c", "n/a", "m/z", "n/b"] {
        test.register(service, "i", 60_000).await;
    }
    test.update("n/b", "i", Patch { status: Some(Status::Down), ..Patch::default() }).await;
    let page = |after: Option<&str>, count| {
        let after = after.map(name);
        let (services, last, _) = test.engine.services(&may_list("n"), after.as_ref(), count);
        let listed = services.last().filter(|_| services.len() == count);
        assert_eq!(last.as_ref(), listed.map(|service| &service.key.service));
        let line = |s: &ServiceSummary| format!("{} {}/{}", s.key, s.serving, s.instances);
        services.iter().map(line).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 2), ["n/a 1/1", "n/b 0/1"]);
    assert_eq!(page(Some("b"), 2), ["n/c 1/1"]);
    test.deregister("n/a", "i").await;
    assert_eq!(page(None, 9), ["n/b 0/1", "n/c 1/1"]);
    assert_eq!(test.engine.status(&may_read_status()).services, 3);
}

#[tokio::test(start_paused = true)]
async fn empty_services_are_removed_once_the_log_dropped_their_last_change() {
    let test = start_with(MemoryStore, &small_log(8));
    let name_of = |n: usize| format!("n/s{n}");
    test.register("n/lives", "i", 3_600_000).await;
    for n in 0..200 {
        test.register(&name_of(n), "i", 60_000).await;
        test.deregister(&name_of(n), "i").await;
        let known =
            (0..=n).filter(|n| test.engine.service(&may_discover(&name_of(*n))).0.is_some());
        assert!(known.count() <= 8);
    }
    assert_eq!(test.ids("n/lives"), ["i"], "the log dropped its change long ago");
    assert!(test.engine.service(&may_discover(&name_of(0))).0.is_none());
    // One that returns is a new service of the same name.
    test.register(&name_of(0), "j", 60_000).await;
    assert_eq!(test.ids(&name_of(0)), ["j"]);
}
