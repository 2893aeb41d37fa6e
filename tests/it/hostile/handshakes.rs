//! Handshakes that are refused, as OpenSSL reports them, and clear text on a port with TLS.

use std::{fs, path::Path, process::Stdio};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
};
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::Code;
use waypost_testing::{
    authority::TestAuthority,
    http2::{RawClient, framed},
    process::{RegistryProcess, Serve, output},
    wait::soon,
};

const SERVER: &str = "registry.test";
const CALLER: &str = "spiffe://test/caller";
/// Certificates are demanded: no caller could do anything without one.
const POLICY: &str = "[[allow]]\nwho = 'spiffe://test/caller'\nmay = ['status']\non = '*/*'\n";

struct World {
    server: RegistryProcess,
    authority: TestAuthority,
    files: TempDir,
}

impl World {
    async fn start() -> Self {
        let authority = TestAuthority::new("test");
        let files = authority.folder(SERVER);
        let policy = files.path().join("policy.toml");
        fs::write(&policy, POLICY).expect("written");
        let server = Serve::new(env!("CARGO_BIN_EXE_waypost"))
            .arguments(["--tls".as_ref(), files.path().as_os_str()])
            .arguments(["--policy".as_ref(), policy.as_os_str()])
            .start()
            .await;
        Self { server, authority, files }
    }

    /// Writes the folder of a caller below the server's.
    fn caller(&self, name: &str, authority: &TestAuthority, expired: bool) {
        let folder = self.files.path().join(name);
        fs::create_dir(&folder).expect("a folder");
        let identity =
            if expired { authority.issue_expired(CALLER) } else { authority.issue(CALLER) };
        authority.write_folder(&folder, &identity);
    }

    /// Returns what `openssl s_client` prints of a connection with these arguments.
    async fn openssl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("openssl");
        command
            .current_dir(self.files.path())
            .args(["s_client", "-ign_eof", "-servername", SERVER, "-CAfile", "ca.crt"])
            .args(["-alpn", "h2", "-connect", &self.server.address().to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let ended = output(command).await;
        String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned()
    }
}

/// Returns whether OpenSSL is installed; a machine of the CI has to have it.
fn has_openssl() -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).any(|path| path.join("openssl").is_file());
    let must = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(found || !must, "openssl is not installed");
    found
}

fn identity(folder: &Path) -> [String; 4] {
    let file = |name| folder.join(name).display().to_string();
    ["-cert".to_owned(), file("tls.crt"), "-key".to_owned(), file("tls.key")]
}

#[tokio::test]
async fn openssl_reports_why_a_handshake_was_refused() {
    if !has_openssl() {
        eprintln!("skipped: openssl is not on this machine");
        return;
    }
    let world = World::start().await;
    world.caller("expired", &world.authority, true);
    world.caller("stranger", &TestAuthority::new("other"), false);
    for version in ["-tls1_2", "-tls1_3"] {
        for (folder, alerts) in [
            // TLS 1.2 has no alert of its own for a missing certificate.
            (None, &["certificate required", "handshake failure"][..]),
            (Some("expired"), &["certificate expired"]),
            (Some("stranger"), &["unknown ca"]),
        ] {
            let identity = folder.map(|folder| identity(Path::new(folder)));
            let mut arguments = vec![version];
            arguments.extend(identity.iter().flatten().map(String::as_str));
            let printed = world.openssl(&arguments).await;
            let reported = alerts.iter().any(|alert| printed.contains(&format!("alert {alert}")));
            assert!(reported, "{version} {folder:?}: {printed}");
        }
    }
    for version in ["-tls1", "-tls1_1"] {
        let printed = world.openssl(&[version, "-cipher", "DEFAULT@SECLEVEL=0"]).await;
        // Without a cipher in common, that is found first.
        let alerts = ["alert protocol version", "alert handshake failure"];
        assert!(alerts.iter().any(|alert| printed.contains(alert)), "{version}: {printed}");
        assert!(printed.contains("Cipher is (NONE)"), "{version}: {printed}");
    }
}

#[tokio::test]
async fn caller_of_the_authority_is_let_in_and_clear_text_is_not() {
    let world = World::start().await;
    let address = world.server.address();
    let connect = || async { soon("a connection", TcpStream::connect(address)).await.unwrap() };
    let connector = world.authority.connector(Some(&world.authority.issue(CALLER)));
    let name = ServerName::try_from(SERVER).expect("a name");
    let stream = connector.connect(name, connect().await).await.expect("a handshake");
    let mut client = RawClient::over(stream, address).await.expect("HTTP/2");
    let response = client.grpc("/waypost.v1.Admin/GetStatus", framed(&[])).await;
    assert_eq!(response.status().code(), Code::Ok, "{response:?}");
    for (request, begins) in [
        (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..], &b"\0\0\0\x04"[..]),
        (b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n", b"HTTP/1.1 400 "),
    ] {
        let mut stream = connect().await;
        stream.write_all(request).await.expect("sent");
        let mut answer = Vec::new();
        // Bytes that were not read reset the connection, after the answer.
        let _reset = soon("the end", stream.read_to_end(&mut answer)).await;
        assert!(answer.starts_with(begins), "{answer:?}");
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains("this port speaks TLS only"), "{text}");
    }
}
