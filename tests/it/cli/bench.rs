//! `waypost bench`: each workload measures what it claims, leaves nothing behind, and refuses what
//! can't be measured. The figures themselves are not judged.

use std::fs;

use serde_json::Value;

use super::support::{Server, finish, program};

/// Runs a workload against a server of its own, for a moment. Returns the report; a failure is exit
/// code 1.
async fn measured(words: &str) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let mut command = program(["bench"]);
    command.args(words.split_whitespace());
    command.args(["--spawn", "--rounds", "1", "--output", "json"]);
    let finished = finish(command.current_dir(directory.path())).await;
    assert_eq!(finished.code, 0, "{}{}", finished.stdout, finished.stderr);
    let left = fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(left, 0, "nothing is left behind");
    serde_json::from_str(&finished.stdout).unwrap()
}

/// The median of a figure, and of the limit's.
fn figure(report: &Value, name: &str) -> (f64, Option<f64>) {
    let rows = report["figures"].as_array().unwrap();
    let row = rows.iter().find(|row| row["name"] == name).expect("every run tells it");
    (row["measured"]["median"].as_f64().unwrap(), row["limit"]["median"].as_f64())
}

/// The fields of every report.
fn check(report: &Value, workload: &str) {
    assert_eq!(report["workload"], workload);
    for name in ["throughput", "p50", "p90", "p99", "p99.9", "max"] {
        let (measured, limit) = figure(report, name);
        assert!(measured > 0.0 && limit.is_some_and(|limit| limit > 0.0), "{name}: {report}");
    }
    if cfg!(target_os = "linux") {
        assert!(figure(report, "server memory").0 > 0.0);
    }
}

#[tokio::test]
async fn registrations_are_measured() {
    let report = measured("register --store memory --instances 200").await;
    check(&report, "register");
    assert_eq!(figure(&report, "errors"), (0.0, Some(0.0)));
}

#[tokio::test]
async fn lookups_are_measured_at_the_requested_rate() {
    let report = measured("resolve --instances 100 --services 5 --rate 100 --duration 500ms").await;
    check(&report, "resolve");
    // 50 of them, the last of which is due after 490 ms.
    assert!(figure(&report, "throughput").0 <= 102.1, "{report}");
}

#[tokio::test]
async fn heartbeats_keep_all_instances_registered() {
    let report = measured(
        "heartbeat --store memory --instances 100 --connections 2 --interval 1s --duration 4s",
    )
    .await;
    check(&report, "heartbeat");
    assert_eq!(figure(&report, "wrongly expired").0, 0.0);
}

#[tokio::test]
async fn each_watcher_sees_each_change_of_its_service_once() {
    let words = "watch --watchers 6 --connections 2 --services 3 --instances 6 --duration 1s";
    let report = measured(words).await;
    check(&report, "watch");
    // Two watchers see each change; both sides of the ratio cover the same time.
    let (changes, told) = (figure(&report, "throughput").0, figure(&report, "told").0);
    assert!((told / changes - 2.0).abs() < 0.01, "{report}");
}

#[tokio::test]
async fn removals_are_measured_from_their_due_time() {
    let report = measured("expiry --instances 50 --ttl 1s --lookups 50").await;
    check(&report, "expiry");
    assert_eq!((figure(&report, "too early").0, figure(&report, "missed").0), (0.0, 0.0));
    assert!(figure(&report, "lookups before").0 > 0.0);
}

#[tokio::test]
async fn nothing_is_lost_when_the_server_is_killed() {
    let report = measured("restart --instances 100").await;
    check(&report, "restart");
    assert_eq!(figure(&report, "lost").0, 0.0);
}

#[tokio::test]
async fn mixed_load_comes_at_its_rates() {
    let report = measured(
        "mixed --clients 10 --instances 100 --services 5 --registrations 50 --lookups 100 \
         --interval 500ms --duration 1s",
    )
    .await;
    check(&report, "mixed");
    assert!(figure(&report, "registrations").0 <= 51.1, "{report}");
    assert!(figure(&report, "heartbeats").0 > 0.0, "{report}");
}

#[tokio::test]
async fn registry_in_use_is_left_unchanged() {
    let server = Server::start().await;
    let words = ["bench", "register", "--instances", "100", "--rounds", "1"];
    let finished = server.run(&words).await;
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert!(finished.stdout.starts_with("register: 64 callers on 16 connections"));
    let status = server.json(&["status"]).await;
    assert_eq!((&status["instances"], &status["leases"]), (&0.into(), &0.into()));
    assert_eq!(status["revision"], 200, "100 came and went");
    server.stop().await;
}

#[tokio::test]
async fn unsupported_measurement_is_refused() {
    let server = Server::start().await;
    let refused: [(&[&str], &str); 4] = [
        (&["restart"], "--spawn"),
        (&["resolve", "--instances", "3", "--services", "2"], "multiple of --services"),
        (&["heartbeat", "--leases-a-message", "70000"], "between 1 and 65536"),
        (&["watch", "--rate", "0"], "greater than 0"),
    ];
    for (words, reason) in refused {
        server.run(&[&["bench"], words].concat()).await.refused(reason);
    }
    server.stop().await;
}
