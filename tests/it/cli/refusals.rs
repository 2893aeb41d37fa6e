//! Errors: refusals, unreachable registries, help and bad usage.

use std::net::{SocketAddr, TcpListener as StdListener};

use tokio::net::TcpSocket;

use super::{
    REGISTER,
    support::{Server, finish, program, run},
};

#[tokio::test]
async fn refusal_names_the_fields() {
    let server = Server::start().await;
    server.run(&["instances", "bad name"]).await.refused("service: ");
    server.run(&["services", "--namespace", "-"]).await.refused("namespace: ");
    server.run(&["watch", "bad name", "--output", "json"]).await.refused("services");
    let register = ["register", "--service", "-", "--address", "h:1", "--zone", "-"];
    let refused = server.run(&register).await;
    refused.refused("instance.service: ");
    refused.refused("instance.zone: ");
    let short = ["register", "--service", "orders", "--address", "h:1", "--ttl", "10ms"];
    server.run(&short).await.refused("ttl");
}

#[tokio::test]
async fn unreachable_registry_is_reported() {
    // Bound, so that the port stays free of others, but not listening.
    let port = TcpSocket::new_v4().unwrap();
    port.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let url = format!("http://{}", port.local_addr().unwrap());
    let reason = format!("can't reach the registry at {url}: Connection refused");
    let commands: [&[&str]; 6] = [
        &["services"],
        &["instances", "orders"],
        &["drain", "orders", "a"],
        &["deregister", "orders", "a"],
        &["status"],
        &["health"],
    ];
    for command in commands {
        run(&url, command).await.refused(&reason);
    }
    run(&url, &["watch", "--output", "json"]).await.refused(&reason);
}

#[tokio::test]
async fn silent_registry_times_out() {
    // Connections complete, and are never accepted.
    let silent = StdListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    run(&url, &["status"]).await.refused("no response within 5 s");
}

#[tokio::test]
async fn help_describes_every_command() {
    let overview = finish(&mut program(["--help"])).await.stdout;
    let cases = [
        ("register", "while this program or a command runs", "128 + n"),
        ("watch", "until SIGINT or SIGTERM", "PRESENT"),
        ("instances", "in every status", "JSON shows the values"),
        ("ca", "Create a certificate authority", "show"),
        ("token", "Make static tokens", "new"),
        ("policy", "Check a policy, and explain its decisions", "explain"),
    ];
    for (command, summary, detail) in cases {
        let help = finish(&mut program([command, "--help"])).await;
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(help.code, 0);
        assert!(words(&overview).contains(summary) && words(&help.stdout).contains(summary));
        assert!(words(&help.stdout).contains(detail), "{}", help.stdout);
    }
    assert!(!overview.contains("launch"), "{overview}");
}

#[tokio::test]
async fn usage_errors_exit_with_2() {
    let both = [&REGISTER[..], &["--ready", "tcp://h:1", "--status", "up"]].concat();
    let without_command = [&REGISTER[..], &["--drain-time", "1s"]].concat();
    let bad: [&[&str]; 21] = [
        &["backup"],
        &["restore"],
        &["check", "--data-dir"],
        &["services", "extra"],
        &["services", "--output", "xml"],
        &["services", "--registry", "127.0.0.1:7510"],
        &["services", "--registry", "http://127.0.0.1:7510/path"],
        &["instances"],
        &["instances", "orders", "--metadata", "key"],
        &["drain", "orders"],
        &["deregister", "orders"],
        &["register", "--service", "orders"],
        &["register", "--service", "orders", "--address", "::1:80"],
        &["register", "--service", "orders", "--address", "h:0"],
        &["register", "--service", "orders", "--address", "h:1", "--port", "metrics"],
        &["register", "--service", "orders", "--address", "h:1", "--ttl", "soon"],
        &["register", "--service", "orders", "--address", "h:1", "--status", "suspect"],
        &["register", "--service", "orders", "--address", "h:1", "--ready", "https://h:1/"],
        &["register", "--service", "orders", "--address", "h:1", "--ready", "h:1"],
        &both,
        &without_command,
    ];
    for arguments in bad {
        let finished = finish(&mut program(arguments)).await;
        assert_eq!(finished.code, 2, "{arguments:?}: {}", finished.stderr);
        assert!(finished.stdout.is_empty());
    }
}
