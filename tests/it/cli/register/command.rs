//! `register -- COMMAND`: the instance is registered while the command runs.

use std::fs;

use rustix::process::Signal;

use crate::cli::{
    REGISTER,
    support::{Gate, Server, run},
    watch_orders,
};

#[tokio::test]
async fn instance_is_registered_while_its_command_runs() {
    let server = Server::start().await;
    let (mut watch, _marker) = watch_orders(&server).await;
    // Ends on a signal, or after a while so that nothing is left behind.
    let until = format!(
        "for i in $(seq 600); do test -e {}/go && exit $CODE; sleep 0.05; done",
        server.directory().display()
    );
    for (code, told) in [("0", ""), ("3", "waypost: the command ended with exit status: 3\n")] {
        let script = until.replace("$CODE", code);
        let command = [&REGISTER[..], &["--", "sh", "-c", &script]].concat();
        let mut register = server.start_command(&command);
        assert!(register.line().await.starts_with("registered orders/a at"));
        assert_eq!(watch.event().await["kind"], "ADDED");
        fs::write(server.directory().join("go"), "").unwrap();
        let (status, rest, errors) = register.end().await;
        fs::remove_file(server.directory().join("go")).unwrap();
        assert_eq!((status.code(), rest.as_str()), (Some(code.parse().unwrap()), ""));
        assert_eq!(errors, told);
        assert_eq!(watch.event().await["reason"], "DEREGISTERED");
    }
}

#[tokio::test]
async fn instance_is_deregistered_before_its_command_gets_the_signal() {
    let server = Server::start().await;
    for (number, name) in [(Signal::TERM, "TERM"), (Signal::INT, "INT")] {
        let script = format!(
            "trap '\"$WAYPOST\" services --output json; exit 0' {name}; echo ready; \
             for i in $(seq 600); do sleep 0.05; done"
        );
        let command = [&REGISTER[..], &["--output", "json", "--", "sh", "-c", &script]].concat();
        let mut register = server.start_command(&command);
        let mut lines = [register.line().await, register.line().await];
        lines.sort();
        assert_eq!(lines[0], "ready");
        register.signal(number);
        let (status, rest, errors) = register.end().await;
        assert_eq!((status.code(), rest.as_str()), (Some(0), "[]\n"));
        // The shell may print the effect of the signal on its child.
        assert!(!errors.contains("waypost"), "{errors}");
    }
}

#[tokio::test]
async fn command_ended_by_the_signal_is_not_reported_as_failed() {
    let server = Server::start().await;
    let command = [&REGISTER[..], &["--", "sh", "-c", "sleep 30; true"]].concat();
    let mut register = server.start_command(&command);
    assert!(register.line().await.starts_with("registered"));
    register.signal(Signal::TERM);
    let (status, _, errors) = register.end().await;
    assert_eq!((status.code(), errors.as_str()), (Some(143), ""));
}

#[tokio::test]
async fn second_signal_kills_the_command() {
    let server = Server::start().await;
    let (mut watch, _marker) = watch_orders(&server).await;
    let script = "trap '' TERM; echo ready; for i in $(seq 600); do sleep 0.05; done";
    let command = [&REGISTER[..], &["--", "sh", "-c", script]].concat();
    let mut register = server.start_command(&command);
    for _ in 0..2 {
        register.line().await;
    }
    assert_eq!(watch.event().await["kind"], "ADDED");
    register.signal(Signal::TERM);
    // It has received the first: the second is another one.
    assert_eq!(watch.event().await["instance"]["status"], "DRAINING");
    register.signal(Signal::TERM);
    let (status, _, errors) = register.end().await;
    assert_eq!(status.code(), Some(137));
    assert_eq!(errors, "waypost: the command ended with signal: 9 (SIGKILL)\n");
}

#[tokio::test]
async fn refused_registration_ends_the_command() {
    let server = Server::start().await;
    let script = "for i in $(seq 600); do sleep 0.05; done; echo ran to its end";
    let register = ["register", "--service", "-", "--address", "h:1", "--", "sh", "-c", script];
    let finished = server.run(&register).await;
    assert_eq!((finished.code, finished.stdout.as_str()), (1, ""));
    let told = finished.stderr.lines().last().unwrap();
    assert!(told.starts_with("waypost: instance.service: "), "{}", finished.stderr);
}

#[tokio::test]
async fn command_runs_without_a_registry() {
    let gate = Gate::before(None).await;
    let command = [&REGISTER[..], &["--", "sh", "-c", "echo ran"]].concat();
    let finished = run(&gate.url(), &command).await;
    assert_eq!((finished.code, finished.stdout.as_str()), (0, "ran\n"));
    let failing = [&REGISTER[..], &["--", "sh", "-c", "exit 4"]].concat();
    let finished = run(&gate.url(), &failing).await;
    assert_eq!(finished.code, 4);
    let told: Vec<_> = finished.stderr.lines().collect();
    let expected = [
        "waypost: not registered: stopped before the registry responded",
        "waypost: the command ended with exit status: 4",
    ];
    assert_eq!(told, expected);
}
