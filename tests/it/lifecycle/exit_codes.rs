//! The exit codes of `waypost serve` and its errors at start.

use std::net::TcpListener as StdListener;

use tempfile::TempDir;
use waypost_testing::process::output;

use crate::support::waypost;

#[tokio::test]
async fn invalid_configuration_exits_with_64_and_lists_every_error() {
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("waypost.toml");
    let text = "listen = 'nowhere'\nsurprise = 1\n[limits]\nid_bytes_max = 0\nother = 1\n";
    std::fs::write(&file, text).expect("written");
    let mut command = waypost(directory.path());
    command.args(["serve", "--store", "paper", "--log", "waypost=loudly", "--config"]).arg(&file);
    command.env("WAYPOST_LOG_FORMAT", "smoke");
    let ended = output(command).await;
    assert_eq!(ended.status.code(), Some(64), "{ended:?}");
    let said = String::from_utf8_lossy(&ended.stderr);
    for mistake in
        ["listen", "surprise", "id_bytes_max", "limits.other", "paper", "loudly", "smoke"]
    {
        assert!(said.contains(mistake), "{mistake} in {said}");
    }
}

#[tokio::test]
async fn missing_or_malformed_configuration_exits_with_64() {
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("broken.toml"), "listen = 'a'\nwhat\n").expect("written");
    for file in ["missing.toml", "broken.toml", "."] {
        let mut command = waypost(directory.path());
        command.args(["serve", "--config", file]);
        let ended = output(command).await;
        assert_eq!(ended.status.code(), Some(64), "{file}: {ended:?}");
        assert!(!ended.stderr.is_empty(), "{file}");
    }
    for variable in ["WAYPOST_LISTEN", "WAYPOST_STORE", "WAYPOST_LOG_FORMAT", "WAYPOST_CONFIG"] {
        let mut command = waypost(directory.path());
        command.arg("serve").env(variable, "nonsense");
        let ended = output(command).await;
        assert_eq!(ended.status.code(), Some(64), "{variable}: {ended:?}");
    }
}

#[tokio::test]
async fn usage_errors_exit_with_2() {
    let directory = TempDir::new().expect("a directory");
    for arguments in [&[][..], &["serve", "--nonsense"], &["serve", "--listen"], &["nonsense"]] {
        let mut command = waypost(directory.path());
        command.args(arguments);
        let ended = output(command).await;
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {ended:?}");
        assert!(!ended.stderr.is_empty(), "{arguments:?}");
    }
}

#[tokio::test]
async fn address_in_use_exits_with_1() {
    let directory = TempDir::new().expect("a directory");
    let taken = StdListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let mut command = waypost(directory.path());
    command.args(["serve", "--store", "memory", "--listen", &address]);
    let ended = output(command).await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains(&address), "{said}");
}

#[tokio::test]
async fn unwritable_port_file_exits_with_1() {
    let directory = TempDir::new().expect("a directory");
    let mut command = waypost(directory.path());
    command.args(["serve", "--store", "memory", "--listen", "127.0.0.1:0"]);
    command.args(["--port-file", "missing/port"]);
    let ended = output(command).await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
}
