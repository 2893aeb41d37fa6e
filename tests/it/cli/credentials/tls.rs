//! Commands over TLS, and the credentials that they refuse to use.

use std::{fs, net::SocketAddr, path::Path};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use waypost_client::Registration;
use waypost_testing::authority::{TestAuthority, server_tls};

use crate::cli::{
    REGISTER,
    support::{Finished, Running, Server, finish, program, run},
};

/// TLS in front of a server.
struct TlsFront {
    url: String,
    _tasks: JoinSet<()>,
}

impl TlsFront {
    async fn before(address: SocketAddr, tls: TlsAcceptor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let tls = tls.clone();
                connections.spawn(async move {
                    let Ok(mut near) = tls.accept(stream).await else { return };
                    let mut far = TcpStream::connect(address).await.unwrap();
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self { url, _tasks: tasks }
    }

    async fn run(&self, folder: &Path, arguments: &[&str]) -> Finished {
        let tls = ["--tls", folder.to_str().unwrap()];
        run(&self.url, &[arguments, &tls].concat()).await
    }
}

/// A command that fails for its configuration.
#[track_caller]
fn misconfigured(finished: &Finished, reason: &str) {
    assert_eq!((finished.code, finished.stdout.as_str()), (64, ""), "{}", finished.stderr);
    assert!(finished.stderr.starts_with("waypost: "), "{}", finished.stderr);
    assert!(finished.stderr.contains(reason), "{}", finished.stderr);
}

#[tokio::test]
async fn commands_reach_a_registry_over_tls() {
    let server = Server::start().await;
    let _order = server.register(Registration::new("orders", "10.0.0.7", 80).id("b")).await;
    let authority = TestAuthority::new("ca");
    let tls = server_tls(&authority.issue("127.0.0.1"), &[&authority]);
    let front = TlsFront::before(server.address(), tls).await;
    let folder = authority.folder("spiffe://prod.example/operators/me");
    for command in
        [&["status"][..], &["health"], &["whoami"], &["services"], &["instances", "orders"]]
    {
        let finished = front.run(folder.path(), command).await;
        assert_eq!((finished.code, finished.stderr.as_str()), (0, ""), "{command:?}");
    }
    // From the environment, for a command that stays, too.
    let mut register = program(REGISTER);
    register.env("WAYPOST_REGISTRY", &front.url).env("WAYPOST_TLS", folder.path());
    let mut registered = Running::spawn(register.args(["--output", "json"]));
    assert_eq!(registered.event().await["event"], "registered");
}

#[tokio::test]
async fn a_registry_is_measured_over_tls() {
    let server = Server::start().await;
    let authority = TestAuthority::new("ca");
    let tls = server_tls(&authority.issue("127.0.0.1"), &[&authority]);
    let front = TlsFront::before(server.address(), tls).await;
    let folder = authority.folder("spiffe://prod.example/operators/me");
    let directory = tempfile::tempdir().unwrap();
    let mut bench = program(["bench", "register", "--instances", "50", "--rounds", "1"]);
    bench.env("WAYPOST_REGISTRY", &front.url).env("WAYPOST_TLS", folder.path());
    let finished = finish(bench.current_dir(directory.path())).await;
    assert_eq!(finished.code, 0, "{}{}", finished.stdout, finished.stderr);
}

#[tokio::test]
async fn a_refused_handshake_is_explained() {
    let server = Server::start().await;
    let authority = TestAuthority::new("ca");
    let tls = server_tls(&authority.issue("127.0.0.1"), &[&authority]);
    let front = TlsFront::before(server.address(), tls).await;
    let reason = format!("can't reach the registry at {}: ", front.url);
    let roots = authority.folder_of_roots();
    let refused = front.run(roots.path(), &["status"]).await;
    refused.refused(&format!("{reason}the server requires a client certificate"));
    let stranger = TestAuthority::new("other").folder("me");
    let refused = front.run(stranger.path(), &["services"]).await;
    refused.refused(&format!("{reason}the server's certificate can't be trusted: no trusted CA"));
    let own = authority.folder("me");
    run(
        &server.url().replace("http:", "https:"),
        &["status", "--tls", own.path().to_str().unwrap()],
    )
    .await
    .refused("can't reach the registry");
}

#[tokio::test]
async fn credentials_that_can_not_be_used_are_configuration_errors() {
    let authority = TestAuthority::new("ca");
    let folder = authority.folder("me");
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("token"), "s3cret").unwrap();
    fs::write(at("two"), "s3cret s3cret").unwrap();
    let tls = folder.path().to_str().unwrap();
    let https = "https://127.0.0.1:1";
    misconfigured(&run(https, &["status"]).await, "needs CA certificates");
    misconfigured(&run(https, &["status", "--tls", &at("none")]).await, "ca.crt");
    let loopback = "http://127.0.0.1:1";
    let missing = run(loopback, &["status", "--token-file", &at("none")]).await;
    misconfigured(&missing, "can't read the token file");
    let invalid = run(loopback, &["status", "--token-file", &at("two")]).await;
    misconfigured(&invalid, "can't be used");
    assert!(!invalid.stderr.contains("s3cret"));
    for credentials in [["--token-file", &at("token")], ["--tls", tls]] {
        let command = [&["services"], &credentials[..]].concat();
        let clear = run("http://registry.example:7510", &command).await;
        misconfigured(&clear, "in clear text");
    }
    // On this machine, a token may go without TLS.
    let sent = run(loopback, &["status", "--token-file", &at("token")]).await;
    sent.refused("can't reach the registry at http://127.0.0.1:1");
}

#[tokio::test]
async fn with_an_identity_folder_the_default_registry_has_tls() {
    let folder = TestAuthority::new("ca").folder("me");
    let tls = folder.path().to_str().unwrap();
    let help = finish(&mut program(["status", "--help"])).await.stdout;
    assert!(help.contains("with --tls https://127.0.0.1:7510"), "{help}");
    // Nothing may listen there, or a registry of this machine, which is not trusted.
    let finished = finish(&mut program(["status", "--tls", tls])).await;
    finished.refused("can't reach the registry at https://127.0.0.1:7510: ");
}
