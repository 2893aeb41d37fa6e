//! `register`, without a command: the instance is registered while the program runs.

mod command;
mod readiness;
mod wrapper;

use std::{fs, process::Stdio};

use rustix::process::Signal;
use serde_json::Value;
use tokio::process::Command;
use waypost_testing::wait::soon;

use crate::cli::{
    REGISTER,
    support::{Gate, PROGRAM, Running, Server},
    watch_orders,
};

#[tokio::test]
async fn instance_is_deregistered_at_a_signal() {
    let server = Server::start().await;
    let (mut watch, _marker) = watch_orders(&server).await;
    for number in [Signal::TERM, Signal::INT] {
        let more = ["--zone", "z", "--version", "2", "--weight", "7", "--metadata", "k=v"];
        let more = [&REGISTER[..], &more, &["--port", "metrics=9090", "--status", "Starting"]];
        let mut register = server.start_command(&more.concat());
        let line = register.line().await;
        assert!(line.starts_with("registered orders/a at [::1]:80, lease "), "{line}");
        let added = watch.event().await["instance"].take();
        assert_eq!((&added["host"], &added["port"]), (&"::1".into(), &80.into()));
        assert_eq!((&added["zone"], &added["version"]), (&"z".into(), &"2".into()));
        assert_eq!((&added["weight"], &added["status"]), (&7.into(), &"STARTING".into()));
        assert_eq!(
            (&added["metadata"]["k"], &added["ports"]["metrics"]),
            (&"v".into(), &9090.into())
        );
        register.signal(number);
        let (status, rest, errors) = register.end().await;
        assert_eq!((status.code(), rest.as_str(), errors.as_str()), (Some(0), "", ""));
        let removed = watch.event().await;
        assert_eq!(
            (&removed["kind"], &removed["reason"]),
            (&"REMOVED".into(), &"DEREGISTERED".into())
        );
    }
}

/// Starts a command that ignores SIGHUP or not, whatever the tests do.
#[cfg(target_os = "linux")]
async fn registered_with_hangup(server: &Server, action: &str) -> (Running, bool) {
    let mut command = Command::new("env");
    command.arg(action).arg(PROGRAM).args(REGISTER).arg("--registry").arg(server.url());
    let mut register = Running::spawn(command.stdin(Stdio::null()).kill_on_drop(true));
    assert!(register.line().await.starts_with("registered orders/a at"));
    let id = register.process.id().unwrap();
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 == 1;
    (register, ignored)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn hangup_deregisters_unless_ignored() {
    let server = Server::start().await;
    let (register, ignored) = registered_with_hangup(&server, "--default-signal=HUP").await;
    assert!(!ignored);
    register.signal(Signal::HUP);
    assert_eq!(register.end().await.0.code(), Some(0));
    assert_eq!(server.json(&["services"]).await, Value::Array(Vec::new()));
    let (_register, ignored) = registered_with_hangup(&server, "--ignore-signal=HUP").await;
    assert!(ignored);
}

#[tokio::test]
async fn registration_is_printed_as_json() {
    let server = Server::start().await;
    let mut register = server.start_command(&[&REGISTER[..], &["--output", "json"]].concat());
    let told = register.event().await;
    assert_eq!((&told["event"], &told["instance"]["id"]), (&"registered".into(), &"a".into()));
    let lease: u64 = told["lease_id"].as_str().unwrap().parse().unwrap();
    assert_ne!(lease, 0);
}

#[tokio::test]
async fn instance_registers_again_when_the_registry_is_back() {
    let server = Server::start().await;
    let gate = Gate::before(None).await;
    let mut register = Running::start(&gate.url(), &REGISTER);
    let waits = register.error_line().await;
    assert!(waits.contains("does not respond; retrying"), "{waits}");
    gate.put(Some(server.address()));
    assert!(register.line().await.starts_with("registered orders/a at"));
    gate.put(None);
    let away = register.error_line().await;
    assert!(away.contains("can't reach the registry"), "{away}");
    gate.put(Some(server.address()));
    let back = soon("its return", async {
        loop {
            let line = register.error_line().await;
            if line.contains("registered again, lease ") {
                break line;
            }
        }
    })
    .await;
    assert!(back.starts_with("waypost: "), "{back}");
    assert_eq!(server.json(&["instances", "orders"]).await[0]["id"], "a");
}
