//! grpcurl, which finds the services by reflection alone.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command as StdCommand, Output},
};

use serde_json::{Value, json};
use tokio::process::Command;
use waypost_testing::process::output;

use crate::support::TestServer;

/// The program, in the places where it is installed to. A machine of the CI has to have it.
fn grpcurl() -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = env::var_os("PATH").iter().flat_map(env::split_paths).collect();
    if let Ok(asked) = StdCommand::new("go").args(["env", "GOPATH"]).output() {
        let paths = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
        folders.extend(env::split_paths(&paths).map(|path| path.join("bin")));
    }
    folders.extend(env::home_dir().map(|home| home.join("go/bin")));
    let found = folders.iter().map(|folder| folder.join("grpcurl")).find(|path| path.is_file());
    let must = env::var("CI").is_ok_and(|value| value == "true");
    assert!(found.is_some() || !must, "grpcurl is not installed");
    found
}

struct Session<'a> {
    program: &'a Path,
    server: &'a TestServer,
}

impl Session<'_> {
    async fn run(&self, options: &[&str], arguments: &[&str]) -> Output {
        let mut command = Command::new(self.program);
        command.arg("-plaintext").args(options).arg(self.server.address().to_string());
        command.args(arguments).kill_on_drop(true);
        output(command).await
    }

    async fn text(&self, options: &[&str], arguments: &[&str]) -> String {
        let ended = self.run(options, arguments).await;
        assert!(ended.status.success(), "{arguments:?}: {ended:?}");
        String::from_utf8(ended.stdout).expect("UTF-8")
    }

    async fn call(&self, method: &str, request: &Value) -> Value {
        let method = format!("waypost.v1.{method}");
        let answer = self.text(&["-d", &request.to_string()], &[&method]).await;
        serde_json::from_str(&answer).expect("JSON")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpcurl_needs_no_proto_files() {
    let Some(program) = grpcurl() else {
        eprintln!("skipped: grpcurl is not on this machine");
        return;
    };
    let server = TestServer::start().await;
    let session = Session { program: &program, server: &server };

    let listed = session.text(&[], &["list"]).await;
    for service in ["waypost.v1.Registry", "waypost.v1.Discovery", "waypost.v1.Admin"] {
        assert!(listed.lines().any(|line| line == service), "{service} in {listed}");
        let described = session.text(&[], &["describe", service]).await;
        assert!(described.contains("rpc "), "{described}");
    }
    let described = session.text(&[], &["describe", "waypost.v1.Instance"]).await;
    assert!(described.contains("map<string, string> metadata"), "{described}");

    let instance = json!({"service": "orders", "id": "a", "host": "10.0.0.1", "port": 8080,
        "metadata": {"team": "core"}});
    let request = json!({"instance": instance, "ttl": "60s"});
    let registered = session.call("Registry/Register", &request).await;
    assert_eq!(registered["instance"]["status"], "STATUS_UP");
    assert_eq!(registered["heartbeatInterval"], "20s");
    let lease = &registered["leaseId"];
    let beaten = session.call("Registry/Heartbeat", &json!({"lease_ids": [lease, 7]})).await;
    assert_eq!(beaten, json!({"unknownLeaseIds": ["7"]}));
    let resolved = session.call("Discovery/Resolve", &json!({"service": "orders"})).await;
    assert_eq!(resolved["instances"][0]["metadata"]["team"], "core");
    let status = session.call("Admin/GetStatus", &json!({})).await;
    assert_eq!(status["instances"], "1");
    let serving = session.text(&[], &["grpc.health.v1.Health/Check"]).await;
    assert!(serving.contains("SERVING"), "{serving}");

    // A watch has no end but the one that the caller sets.
    let watched =
        session.run(&["-max-time", "2", "-d", "{}"], &["waypost.v1.Discovery/Watch"]).await;
    let said = String::from_utf8_lossy(&watched.stdout);
    assert!(said.contains("\"snapshot\"") && said.contains("\"orders\""), "{watched:?}");

    let refused = session
        .run(&["-d", r#"{"instance": {"port": 70000}}"#], &["waypost.v1.Registry/Register"])
        .await;
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    for part in ["InvalidArgument", "google.rpc.BadRequest", "instance.service", "instance.port"] {
        assert!(said.contains(part), "{part} in {said}");
    }
}
