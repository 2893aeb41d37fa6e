//! The program's exit codes, and what it prints when it can't start.

use std::{fs, process::Stdio, time::Duration};

use tempfile::TempDir;
use tokio::{process::Command, time::timeout};

/// Runs the program to its end, at free ports unless `arguments` differ. Returns its exit code and
/// its standard error.
async fn run(arguments: [&str; 2]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waypost-gateway"));
    for (name, value) in [("--listen", "127.0.0.1:0"), ("--admin-listen", "127.0.0.1:0")] {
        if arguments[0] != name {
            command.args([name, value]);
        }
    }
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(Duration::from_secs(30), command.output()).await.expect("it ends");
    let output = output.unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn invalid_configuration_exits_with_64_and_is_printed_once() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("gateway.toml");
    fs::write(&path, "implicitly = true\n").unwrap();
    let file = path.to_str().unwrap();
    let missing = directory.path().join("missing.toml");
    for (arguments, part) in [
        (["--config", file], "implicitly"),
        (["--config", missing.to_str().unwrap()], "missing.toml"),
        (["--registry", "nonsense"], "nonsense"),
        (["--registry", "https://127.0.0.1:1"], "needs CA certificates"),
        (["--tls", directory.path().to_str().unwrap()], "ca.crt"),
        (["--token-file", missing.to_str().unwrap()], "missing.toml"),
        (["--name", "two words"], "name"),
        (["--log", "="], "--log"),
    ] {
        let (code, printed) = run(arguments).await;
        assert_eq!(code, Some(64), "{arguments:?}: {printed}");
        assert_eq!(printed.matches(part).count(), 1, "{arguments:?}: {printed}");
    }
}

#[tokio::test]
async fn invalid_arguments_exit_with_2() {
    let (code, printed) = run(["--drain", "soon"]).await;
    assert_eq!(code, Some(2), "{printed}");
}

#[tokio::test]
async fn address_in_use_exits_with_1_and_is_printed_once() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, printed) = run(["--admin-listen", &address]).await;
    assert_eq!(code, Some(1), "{printed}");
    assert_eq!(printed.matches(&address).count(), 1, "{printed}");
}
