//! `waypost register … -- COMMAND` in the place of the command: signals, exit codes, the order of
//! the end, and processes that are left over.

use std::{
    env, fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{self, Stdio},
    time::SystemTime,
};

use rustix::process::{Signal, set_child_subreaper};
use serde_json::Value;
use tokio::process::Command;
use waypost_testing::wait::{soon, until};

use crate::cli::{
    REGISTER,
    support::{PROGRAM, Running, Server, run},
    watch_orders,
};

/// A command that runs until a signal, or for 30 s so that nothing is left behind.
const ON: &str = "i=0; while [ $i -lt 600 ]; do sleep 0.05; i=$((i + 1)); done";

/// Registers a shell that runs `script`, with no signal ignored, whatever the tests began with.
fn registered(server: &Server, more: &[&str], script: &str) -> Running {
    let mut command = Command::new("env");
    command.arg("--default-signal").arg(PROGRAM).args(REGISTER).args(more);
    command.arg("--registry").arg(server.url()).args(["--output", "json"]);
    command.args(["--", "sh", "-c", script]).stdin(Stdio::null()).kill_on_drop(true);
    Running::spawn(&mut command)
}

/// Waits for both lines: of the registration, and the command's first. Returns the latter.
async fn first_line(register: &mut Running) -> String {
    let mut lines = [register.line().await, register.line().await];
    lines.sort();
    assert!(lines[1].starts_with('{'), "{lines:?}");
    std::mem::take(&mut lines[0])
}

/// The state of a process: `T` where it is stopped, `Z` where it has ended and is not collected;
/// `None` where there is no such process.
fn state(id: &str) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[tokio::test]
async fn signals_are_forwarded_to_the_command() {
    let server = Server::start().await;
    let signals = [
        (Signal::HUP, "HUP"),
        (Signal::QUIT, "QUIT"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::ALARM, "ALRM"),
        (Signal::VTALARM, "VTALRM"),
        (Signal::PROF, "PROF"),
        (Signal::WINCH, "WINCH"),
        (Signal::ABORT, "ABRT"),
        (Signal::CONT, "CONT"),
    ];
    let traps: String =
        signals.iter().map(|(_, name)| format!("trap 'echo got {name}' {name}; ")).collect();
    let script = format!("{traps} trap 'exit 7' TERM; echo begun; {ON}");
    let mut register = registered(&server, &["--drain-time", "0s"], &script);
    assert_eq!(first_line(&mut register).await, "begun");
    let lease = server.json(&["instances", "orders"]).await[0]["registered_at"].take();
    for (number, name) in signals {
        register.signal(number);
        assert_eq!(register.line().await, format!("got {name}"));
    }
    let instance = server.json(&["instances", "orders"]).await[0].take();
    assert_eq!((&instance["status"], &instance["registered_at"]), (&"UP".into(), &lease));
    register.signal(Signal::TERM);
    assert_eq!(register.end().await.0.code(), Some(7));
}

#[tokio::test]
async fn ignored_signals_stay_ignored_for_the_command() {
    let server = Server::start().await;
    let mut command = Command::new("env");
    command.args(["--default-signal", "--ignore-signal=HUP,USR1"]).arg(PROGRAM).args(REGISTER);
    command.arg("--registry").arg(server.url()).args(["--output", "json"]);
    let script = format!("grep SigIgn /proc/$$/status; {ON}");
    command.args(["--", "sh", "-c", &script]).stdin(Stdio::null()).kill_on_drop(true);
    let mut register = Running::spawn(&mut command);
    let ignored = first_line(&mut register).await;
    let mask = u64::from_str_radix(ignored.strip_prefix("SigIgn:").unwrap().trim(), 16).unwrap();
    let is_ignored = |number: Signal| mask & (1 << (number.as_raw() - 1)) != 0;
    let signals = [Signal::HUP, Signal::USR1, Signal::USR2, Signal::QUIT, Signal::PIPE];
    assert_eq!(signals.map(is_ignored), [true, true, false, false, false], "{mask:x}");
}

#[tokio::test]
async fn terminal_stop_stops_wrapper_and_command() {
    let server = Server::start().await;
    let mut register = registered(&server, &[], &format!("echo $$; {ON}"));
    let command = first_line(&mut register).await;
    let wrapper = register.process.id().unwrap().to_string();
    let both = |wanted: char| [&command, &wrapper].iter().all(|id| state(id) == Some(wanted));
    register.signal(Signal::TSTP);
    until("both are stopped", || both('T')).await;
    register.signal(Signal::CONT);
    until("both go on", || [&command, &wrapper].iter().all(|id| state(id) != Some('T'))).await;
    register.signal(Signal::TERM);
    assert_eq!(register.end().await.0.code(), Some(143));
}

#[tokio::test]
async fn exit_code_is_that_of_the_command() {
    let server = Server::start().await;
    for (script, code) in [
        ("exit 0", 0),
        ("exit 2", 2),
        ("exit 77", 77),
        ("exit 255", 255),
        ("kill -ABRT $$", 134),
        ("kill -USR2 $$", 140),
        ("kill -TERM $$", 143),
    ] {
        let command = [&REGISTER[..], &["--", "sh", "-c", script]].concat();
        let finished = server.run(&command).await;
        assert_eq!(finished.code, code, "{script}: {}", finished.stderr);
    }
}

#[tokio::test]
async fn command_that_cannot_run_is_never_registered() {
    let server = Server::start().await;
    let directory = server.directory();
    let file = |name: &str, mode: u32, text: &str| {
        let path = directory.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let cases = [
        ("/nowhere/at-all".to_owned(), 127, "No such file"),
        ("no-such-program-anywhere".to_owned(), 127, "No such file"),
        (file("no-interpreter", 0o755, "#!/nowhere/sh\n"), 127, "No such file"),
        (file("not-executable", 0o644, "#!/bin/sh\n"), 126, "Permission denied"),
        (directory.to_str().unwrap().to_owned(), 126, "Permission denied"),
    ];
    for (program, code, reason) in cases {
        let finished = server.run(&[&REGISTER[..], &["--", &program]].concat()).await;
        assert_eq!((finished.code, finished.stdout.as_str()), (code, ""), "{program}");
        assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
        let expected = format!("waypost: can't run {program}: {reason}");
        assert!(finished.stderr.starts_with(&expected), "{}", finished.stderr);
    }
    // Not even for a moment.
    assert_eq!(server.json(&["status"]).await["revision"], 0);
}

#[tokio::test]
async fn command_gets_the_signal_after_the_drain_time() {
    let server = Server::start().await;
    let (mut watch, _marker) = watch_orders(&server).await;
    let script = format!("trap 'date +%s.%N; exit 5' TERM; echo begun; {ON}");
    let mut register = registered(&server, &["--drain-time", "1500ms"], &script);
    assert_eq!(first_line(&mut register).await, "begun");
    assert_eq!(watch.event().await["kind"], "ADDED");
    register.signal(Signal::TERM);
    let draining = watch.event().await;
    assert_eq!(draining["instance"]["status"], "DRAINING");
    let removed = watch.event().await;
    assert_eq!(removed["reason"], "DEREGISTERED");
    let asked: f64 = register.line().await.parse().unwrap();
    let seconds = |event: &Value| {
        let time = humantime::parse_rfc3339(event["time"].as_str().unwrap()).unwrap();
        time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
    };
    // The status was sent a moment before it was seen.
    assert!(seconds(&removed) - seconds(&draining) > 1.3, "{draining} {removed}");
    assert!(asked > seconds(&draining) + 1.3, "{asked}: {draining}");
    assert_eq!(register.end().await.0.code(), Some(5));
}

#[tokio::test]
async fn drain_ends_with_its_command() {
    let server = Server::start().await;
    let (mut watch, _marker) = watch_orders(&server).await;
    let go = server.directory().join("go");
    let script =
        format!("echo begun; while [ ! -e {} ]; do sleep 0.05; done; exit 6", go.display());
    let mut register = registered(&server, &["--drain-time", "1h"], &script);
    assert_eq!(first_line(&mut register).await, "begun");
    assert_eq!(watch.event().await["kind"], "ADDED");
    register.signal(Signal::INT);
    assert_eq!(watch.event().await["instance"]["status"], "DRAINING");
    fs::write(&go, "").unwrap();
    assert_eq!(register.end().await.0.code(), Some(6));
    assert_eq!(watch.event().await["reason"], "DEREGISTERED");
}

#[tokio::test]
async fn killed_wrapper_ends_its_command() {
    let server = Server::start().await;
    // While it is up, and while it waits for the command after the registry is stopped.
    for asked in [false, true] {
        let script = format!("trap 'echo asked' TERM; trap '' HUP INT; echo $$; {ON}");
        let mut register = registered(&server, &["--drain-time", "0s"], &script);
        let command = first_line(&mut register).await;
        if asked {
            server.process.signal(Signal::STOP);
            register.signal(Signal::TERM);
            assert_eq!(register.line().await, "asked");
        }
        register.signal(Signal::KILL);
        until("the command's end", || matches!(state(&command), None | Some('Z'))).await;
    }
    server.process.signal(Signal::CONT);
}

/// The environment variable for the arguments, one a line, of a program that becomes the parent of
/// the orphans among its descendants, as the first process of a container is.
const SUBREAPER: &str = "WAYPOST_TEST_SUBREAPER";

/// Not a test, but what a test starts in a process of its own.
#[test]
fn as_a_subreaper() {
    let Some(arguments) = env::var_os(SUBREAPER) else { return };
    set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let arguments = arguments.into_string().unwrap();
    let error = process::Command::new(PROGRAM).args(arguments.lines()).env_remove(SUBREAPER).exec();
    panic!("{error}");
}

#[tokio::test]
async fn orphans_are_collected_and_the_commands_exit_code_is_kept() {
    let server = Server::start().await;
    let directory = server.directory().display();
    // Not for ever, so that nothing is left behind.
    let wait = |file: &str| {
        format!("for i in $(seq 600); do test -e {directory}/{file} && break; sleep 0.05; done")
    };
    // The inner shell ends at once: what it has started is an orphan.
    let script = format!(
        "sh -c '({}) </dev/null >/dev/null & echo $!'; {}; exit 9",
        wait("go"),
        wait("end")
    );
    let url = server.url();
    let arguments = [&REGISTER[..], &["--registry", &url, "--", "sh", "-c", &script]].concat();
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["cli::register::wrapper::as_a_subreaper", "--exact", "--nocapture"]);
    command.env(SUBREAPER, arguments.join("\n")).stdin(Stdio::null()).kill_on_drop(true);
    let mut register = Running::spawn(&mut command);
    let orphan = soon("the orphan", async {
        loop {
            let line = register.line().await;
            if line.parse::<u32>().is_ok() {
                break line;
            }
        }
    })
    .await;
    let parent = format!("PPid:\t{}\n", register.process.id().unwrap());
    let status = Path::new("/proc").join(&orphan).join("status");
    until("the orphan's adoption", || fs::read_to_string(&status).unwrap().contains(&parent)).await;
    fs::write(server.directory().join("go"), "").unwrap();
    until("the orphan's collection", || state(&orphan).is_none()).await;
    fs::write(server.directory().join("end"), "").unwrap();
    assert_eq!(register.end().await.0.code(), Some(9));
}

#[tokio::test]
async fn command_ends_in_order_without_a_registry() {
    // Bound and not listening.
    let port = tokio::net::TcpSocket::new_v4().unwrap();
    port.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", port.local_addr().unwrap());
    let script = format!("trap 'exit 8' TERM; kill -TERM $PPID; {ON}");
    let finished = run(&url, &[&REGISTER[..], &["--", "sh", "-c", &script]].concat()).await;
    assert_eq!(finished.code, 8, "{}", finished.stderr);
}
