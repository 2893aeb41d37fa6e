//! `watch`: events, reconnects, and its end.

use rustix::process::Signal;
use serde_json::Value;
use waypost_client::proto::Status;
use waypost_testing::wait::soon;

use super::{
    orders,
    support::{Gate, Running, Server},
    words,
};

#[tokio::test]
async fn watch_prints_present_instances_and_changes() {
    let server = Server::start().await;
    let mut a = server.register(orders("a")).await;
    let mut table = server.start_command(&["watch", "orders"]);
    let mut json = server.start_command(&["watch", "--output", "json"]);
    assert_eq!(words(&table.line().await)[..3], ["TIME", "KIND", "SERVICE"]);
    let present = table.line().await;
    let present = words(&present);
    assert!(humantime::parse_rfc3339(present[0]).is_ok(), "{present:?}");
    assert_eq!(present[1..], ["PRESENT", "orders", "a", "10.0.0.7:8080", "UP", "-", "1"]);
    let event = json.event().await;
    assert_eq!((&event["kind"], &event["instance"]["id"]), (&"PRESENT".into(), &"a".into()));
    a.set_status(Status::Draining).await.unwrap();
    let updated = table.line().await;
    assert_eq!(words(&updated)[1..2], ["UPDATED"]);
    assert_eq!(words(&updated)[5..], ["DRAINING", "-", "2"]);
    assert!(!updated.contains('\u{1b}'), "{updated:?}");
    let event = json.event().await;
    assert_eq!((&event["kind"], &event["reason"]), (&"UPDATED".into(), &Value::Null));
    soon("the deregistration", a.deregister()).await.unwrap();
    let removed = table.line().await;
    assert_eq!(words(&removed)[1..2], ["REMOVED"]);
    assert_eq!(words(&removed)[6..], ["DEREGISTERED", "3"]);
    let event = json.event().await;
    assert_eq!((&event["reason"], &event["revision"]), (&"DEREGISTERED".into(), &3.into()));
    for (command, number) in [(table, Signal::INT), (json, Signal::TERM)] {
        command.signal(number);
        let (status, rest, errors) = command.end().await;
        assert_eq!((status.code(), rest.as_str(), errors.as_str()), (Some(0), "", ""));
    }
}

#[tokio::test]
async fn watch_resumes_when_the_registry_is_back() {
    let server = Server::start().await;
    let gate = Gate::before(Some(server.address())).await;
    let a = server.register(orders("a")).await;
    let mut watch = Running::start(&gate.url(), &["watch", "--output", "json"]);
    assert_eq!(watch.event().await["kind"], "PRESENT");
    gate.put(None);
    let lost = watch.error_line().await;
    assert!(lost.starts_with("waypost: can't reach the registry at "), "{lost}");
    let _b = server.register(orders("b")).await;
    soon("the deregistration", a.deregister()).await.unwrap();
    gate.put(Some(server.address()));
    assert_eq!(watch.error_line().await, "waypost: reconnected to the registry");
    let added = watch.event().await;
    assert_eq!((&added["kind"], &added["instance"]["id"]), (&"ADDED".into(), &"b".into()));
    let removed = watch.event().await;
    assert_eq!((&removed["kind"], &removed["reason"]), (&"REMOVED".into(), &"DEREGISTERED".into()));
}

#[tokio::test]
async fn watch_prints_the_difference_to_another_history() {
    let (before, after) = (Server::start().await, Server::start().await);
    let gate = Gate::before(Some(before.address())).await;
    let _a = before.register(orders("a")).await;
    let _b = after.register(orders("b")).await;
    let mut watch = Running::start(&gate.url(), &["watch", "orders", "--output", "json"]);
    assert_eq!(watch.event().await["instance"]["id"], "a");
    gate.put(Some(after.address()));
    let removed = watch.event().await;
    assert_eq!((&removed["kind"], &removed["instance"]["id"]), (&"REMOVED".into(), &"a".into()));
    let added = watch.event().await;
    assert_eq!((&added["kind"], &added["instance"]["id"]), (&"ADDED".into(), &"b".into()));
}

#[tokio::test]
async fn closed_output_is_a_normal_end() {
    let server = Server::start().await;
    let mut a = server.register(orders("a")).await;
    let mut watch = server.start_command(&["watch", "--output", "json"]);
    assert_eq!(watch.event().await["kind"], "PRESENT");
    let Running { mut process, stdout, stderr: _stderr } = watch;
    drop(stdout);
    a.set_weight(1).await.unwrap();
    let status = soon("the end", process.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn blocked_watch_ends_at_a_signal() {
    let server = Server::start().await;
    let mut registered = Vec::new();
    // More than pipes hold.
    for index in 0..100 {
        let registration = orders(&index.to_string()).metadata("k", "v".repeat(4000));
        registered.push(server.register(registration).await);
    }
    let mut watch = server.start_command(&["watch", "--output", "json"]);
    assert_eq!(watch.event().await["kind"], "PRESENT");
    watch.signal(Signal::TERM);
    let status = soon("the end", watch.process.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}
