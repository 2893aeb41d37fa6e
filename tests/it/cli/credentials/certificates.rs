//! `waypost ca`, by real processes: files, modes, errors, and what OpenSSL makes of it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command as StdCommand, Output},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::cli::support::{Finished, PROGRAM, finish, program};

/// A directory in which commands run.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    async fn run(&self, arguments: &[&str]) -> Finished {
        finish(program(arguments).current_dir(self.0.path())).await
    }

    /// Runs a command that succeeds. Returns its output.
    async fn output(&self, arguments: &[&str]) -> String {
        let Finished { code, stdout, stderr } = self.run(arguments).await;
        assert_eq!((code, stderr.as_str()), (0, ""), "{arguments:?}");
        stdout
    }

    /// Runs `waypost ARGUMENTS` after a shell's commands.
    async fn shell(&self, before: &str, arguments: &str) -> Finished {
        let mut shell = tokio::process::Command::new("sh");
        shell.arg("-c").arg(format!("{before}; exec \"$0\" {arguments}")).arg(PROGRAM);
        finish(shell.current_dir(self.0.path()).kill_on_drop(true)).await
    }

    /// The modes of all files and folders below a name.
    fn modes(&self, name: &str) -> Vec<(String, u32)> {
        let (mut found, mut folders) = (Vec::new(), vec![self.path(name)]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
                found.push((path.file_name().unwrap().to_str().unwrap().to_owned(), mode));
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        found
    }
}

const NEXT: &str = "waypost serve --tls waypost-pki/server --policy waypost-pki/policy.toml";

#[tokio::test]
async fn init_prints_the_next_command_and_happens_once() {
    let place = Place::new();
    let output = place.output(&["ca", "init"]).await;
    assert_eq!(output.lines().last(), Some(NEXT), "{output}");
    let key = place.read("waypost-pki/ca.key");
    place.run(&["ca", "init"]).await.refused("waypost-pki/server: exists; --renew replaces");
    assert_eq!(place.read("waypost-pki/ca.key"), key);
    assert!(!output.contains("PRIVATE"), "{output}");
    let other = place.output(&["ca", "init", "--dir", "it's mine"]).await;
    let next = r"waypost serve --tls 'it'\''s mine/server' --policy 'it'\''s mine/policy.toml'";
    assert_eq!(other.lines().last(), Some(next));
}

#[tokio::test]
async fn renewal_keeps_the_authority() {
    let place = Place::new();
    place.output(&["ca", "init", "--trust-domain", "prod.example", "--host", "registry"]).await;
    place.output(&["ca", "issue", "orders"]).await;
    let files = ["server/tls.crt", "admin/tls.key", "workloads/default/orders/tls.crt"];
    let kept = ["ca.crt", "ca.key", "policy.toml", "server/ca.crt"];
    let read = |names: &[&str]| -> Vec<String> {
        names.iter().map(|name| place.read(&format!("waypost-pki/{name}"))).collect()
    };
    let before = (read(&files), read(&kept));
    let renewed = place.output(&["ca", "init", "--renew", "--host", "10.0.0.7"]).await;
    assert!(renewed.contains("issued spiffe://prod.example/server until "), "{renewed}");
    place.run(&["ca", "issue", "orders"]).await.refused("workloads/default/orders: exists");
    place.output(&["ca", "issue", "orders", "--renew"]).await;
    let after = (read(&files), read(&kept));
    assert!(before.0.iter().zip(&after.0).all(|(before, after)| before != after));
    assert_eq!(before.1, after.1);
    let shown: Value =
        serde_json::from_str(&place.output(&["ca", "show", "--output", "json"]).await).unwrap();
    let hosts = shown[1]["hosts"].as_array().unwrap();
    assert!(hosts.contains(&"registry".into()) && hosts.contains(&"10.0.0.7".into()), "{shown}");
}

#[tokio::test]
async fn show_lists_every_certificate() {
    let place = Place::new();
    place.output(&["ca", "init"]).await;
    place.output(&["ca", "issue", "orders", "--namespace", "shop"]).await;
    let alice = ["ca", "issue", "alice", "--operator", "--output", "json"];
    let issued: Value = serde_json::from_str(&place.output(&alice).await).unwrap();
    assert_eq!(issued["identity"], "spiffe://waypost.internal/operators/alice");
    assert_eq!(issued["folder"], "waypost-pki/operators/alice");
    let table = place.output(&["ca", "show"]).await;
    let rows: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().collect()).collect();
    let identities: Vec<_> = rows.iter().map(|row| (row[0], row[1])).collect();
    let expected = [
        ("CERTIFICATE", "IDENTITY"),
        ("ca.crt", "spiffe://waypost.internal"),
        ("server", "spiffe://waypost.internal/server"),
        ("admin", "spiffe://waypost.internal/operators/admin"),
        ("operators/alice", "spiffe://waypost.internal/operators/alice"),
        ("workloads/shop/orders", "spiffe://waypost.internal/ns/shop/sa/orders"),
    ];
    assert_eq!(identities, expected);
    assert_eq!(rows[5][4..], ["89", "days"], "{table}");
    fs::write(place.path("waypost-pki/admin/tls.key"), "hello").unwrap();
    let Finished { code, stdout, stderr } = place.run(&["ca", "show"]).await;
    assert_eq!((code, stdout.lines().count()), (1, 5), "{stdout}");
    assert!(stderr.contains("waypost-pki/admin/tls.key: is not a private key"), "{stderr}");
}

#[tokio::test]
async fn modes_do_not_depend_on_the_umask() {
    for umask in ["0", "077", "0777"] {
        let place = Place::new();
        let made = place.shell(&format!("umask {umask}"), "ca init").await;
        assert_eq!((made.code, made.stderr.as_str()), (0, ""), "umask {umask}");
        let issued = place.shell(&format!("umask {umask}"), "ca issue orders").await;
        assert_eq!((issued.code, issued.stderr.as_str()), (0, ""), "umask {umask}");
        let renewed = place.shell(&format!("umask {umask}"), "ca init --renew").await;
        assert_eq!((renewed.code, renewed.stderr.as_str()), (0, ""), "umask {umask}");
        let modes = place.modes(".");
        assert_eq!(modes.len(), 18, "{modes:?}");
        for (name, mode) in modes {
            let expected = match name.rsplit_once('.') {
                Some((_, "key")) => 0o600,
                Some(_) => 0o644,
                None => 0o700,
            };
            assert_eq!(mode, expected, "{name} under umask {umask}");
        }
    }
}

#[tokio::test]
async fn failures_name_the_file_and_leave_nothing() {
    let place = Place::new();
    fs::write(place.path("file"), "").unwrap();
    let refused = place.run(&["ca", "init", "--dir", "file/pki"]).await;
    refused.refused("file/pki/server: Not a directory");
    place.run(&["ca", "init", "--dir", "/proc/pki"]).await.refused("/proc/pki: No such file");
    place.run(&["ca", "issue", "orders"]).await.refused("waypost-pki/ca.key: No such file");
    place.run(&["ca", "show"]).await.refused("waypost-pki/ca.crt: No such file");
    place.run(&["ca", "init", "--renew"]).await.refused("waypost-pki/ca.key: No such file");
    // As on a full disk, every write fails.
    let full = place.shell("trap '' XFSZ; ulimit -f 0", "ca init").await;
    full.refused("File too large");
    assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 1);
    place.output(&["ca", "init"]).await;
    let before = place.modes(".").len();
    place.shell("trap '' XFSZ; ulimit -f 0", "ca issue orders").await.refused("File too large");
    place.shell("trap '' XFSZ; ulimit -f 0", "ca init --renew").await.refused("File too large");
    assert_eq!(place.modes(".").len(), before);
    assert_eq!(place.run(&["ca", "show"]).await.code, 0);
}

#[tokio::test]
async fn invalid_names_are_wrong_usage() {
    let place = Place::new();
    place.output(&["ca", "init", "--dir", "pki"]).await;
    let long = "x".repeat(1025);
    let bad: [&[&str]; 18] = [
        &["ca"],
        &["ca", "init", "--trust-domain", "Prod.example"],
        &["ca", "init", "--trust-domain", ""],
        &["ca", "init", "--trust-domain", "a/b"],
        &["ca", "init", "--trust-domain", "a", "--renew"],
        &["ca", "init", "--host", "http://registry"],
        &["ca", "init", "--host", "registry:7510"],
        &["ca", "init", "--host", "*.example"],
        &["ca", "init", "--host", "0.0.0.0"],
        &["ca", "issue"],
        &["ca", "issue", "bad name"],
        &["ca", "issue", "../up"],
        &["ca", "issue", ".."],
        &["ca", "issue", "orders/"],
        &["ca", "issue", &long],
        &["ca", "issue", "orders", "--namespace", "a/b"],
        &["ca", "issue", "alice", "--operator", "--namespace", "shop"],
        &["ca", "show", "--output", "xml"],
    ];
    for arguments in bad {
        let finished = place.run(arguments).await;
        assert_eq!((finished.code, finished.stdout.as_str()), (2, ""), "{arguments:?}");
    }
    assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 1);
    // Names of which each is valid, and too long together.
    let name = "x".repeat(1024);
    let arguments = ["ca", "issue", &name, "--namespace", &name, "--dir", "pki"];
    place.run(&arguments).await.refused("the SPIFFE ID has 2");
}

/// OpenSSL, if it is on this machine.
fn openssl(directory: &Path, arguments: &str) -> Option<Output> {
    let arguments = arguments.split_whitespace();
    let ended = StdCommand::new("openssl").args(arguments).current_dir(directory).output();
    match ended {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("skipped: openssl can't be run: {error}");
            None
        }
    }
}

#[tokio::test]
async fn openssl_verifies_the_certificates() {
    let place = Place::new();
    place.output(&["ca", "init", "--host", "registry.example"]).await;
    place.output(&["ca", "issue", "localhost"]).await;
    let folder = place.path("waypost-pki");
    let workload = "workloads/default/localhost/tls.crt";
    let verify = "verify -x509_strict -CAfile ca.crt -purpose";
    for (arguments, holds) in [
        (format!("{verify} sslserver -verify_hostname localhost server/tls.crt"), true),
        (format!("{verify} sslserver -verify_hostname registry.example server/tls.crt"), true),
        (format!("{verify} sslserver -verify_ip ::1 server/tls.crt"), true),
        (format!("{verify} sslserver -verify_hostname other.example server/tls.crt"), false),
        (format!("{verify} sslclient admin/tls.crt"), true),
        (format!("{verify} sslclient {workload}"), true),
        // The common name of a workload is no host either.
        (format!("{verify} sslserver -verify_hostname localhost {workload}"), false),
        ("pkey -in server/tls.key -check -noout".to_owned(), true),
        (format!("x509 -in {workload} -noout -checkend 7700000"), true),
        (format!("x509 -in {workload} -noout -checkend 7900000"), false),
    ] {
        let Some(output) = openssl(&folder, &arguments) else { return };
        assert_eq!(output.status.success(), holds, "{arguments}: {output:?}");
    }
    let read = "x509 -noout -text -in workloads/default/localhost/tls.crt";
    let Some(output) = openssl(&folder, read) else { return };
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "URI:spiffe://waypost.internal/ns/default/sa/localhost",
        "TLS Web Server Authentication, TLS Web Client Authentication",
        "ASN1 OID: prime256v1",
        "ecdsa-with-SHA256",
        "CA:FALSE",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}
