//! TLS handshakes: who is trusted, and what users read when somebody is not.

use std::time::Duration;

use rcgen::{Certificate, KeyPair};
use tokio::net::TcpListener;
use waypost_testing::authority::{TestAuthority, server_tls};

use super::{client, credentials, register, soon, unreachable};
use crate::support::Door;

const HOST: &str = "127.0.0.1";

/// The reason for which a client with this certificate can't connect.
async fn refused(
    authority: &TestAuthority,
    server: &(Certificate, KeyPair),
    clients: &[&TestAuthority],
    own: Option<&(Certificate, KeyPair)>,
) -> String {
    let address = Door::new().listen(server_tls(server, clients)).await;
    let folder = authority.folder_of_roots();
    if let Some(own) = own {
        authority.write_folder(folder.path(), own);
    }
    unreachable(&client(address, credentials(folder.path()))).await
}

#[tokio::test]
async fn both_sides_with_certificates_of_one_authority_trust_each_other() {
    let authority = TestAuthority::new("ca");
    let door = Door::new();
    let address = door.listen(server_tls(&authority.issue(HOST), &[&authority])).await;
    let folder = authority.folder("spiffe://prod.example/orders");
    let client = client(address, credentials(folder.path()));
    let registered = register(&client).await;
    let service = client.service("orders");
    soon(service.ready()).await.unwrap();
    assert_eq!(service.snapshot().unwrap().len(), 1);
    registered.deregister().await.unwrap();
    assert_eq!(door.counts().opened, 1, "all of a client goes over one connection");
    // It closes with the client.
    drop((client, service));
    soon(async {
        while door.counts().open > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_has_only_the_authority_trusts_the_server() {
    let authority = TestAuthority::new("ca");
    let door = Door::new();
    let address = door.listen(server_tls(&authority.issue(HOST), &[])).await;
    let folder = authority.folder_of_roots();
    drop(register(&client(address, credentials(folder.path()))).await);
}

#[tokio::test]
async fn alerts_of_the_server_come_out_in_words() {
    let authority = TestAuthority::new("ca");
    let server = authority.issue(HOST);
    let reason = refused(&authority, &server, &[&authority], None).await;
    assert!(reason.contains("requires a client certificate, and none was sent"), "{reason}");
    let expired = authority.issue_expired("orders");
    let reason = refused(&authority, &server, &[&authority], Some(&expired)).await;
    assert!(reason.contains("refused the client certificate: it has expired"), "{reason}");
    let other = TestAuthority::new("other").issue("orders");
    let reason = refused(&authority, &server, &[&authority], Some(&other)).await;
    assert!(reason.contains("the server trusts no CA that signed it"), "{reason}");
}

#[tokio::test]
async fn an_untrusted_server_is_named_in_words() {
    let authority = TestAuthority::new("ca");
    let reason = refused(&TestAuthority::new("other"), &authority.issue(HOST), &[], None).await;
    assert!(reason.contains("certificate can't be trusted: no trusted CA signed it"), "{reason}");
    let reason = refused(&authority, &authority.issue("other.example"), &[], None).await;
    assert!(reason.contains("it is not for 127.0.0.1"), "{reason}");
    let reason = refused(&authority, &authority.issue_expired(HOST), &[], None).await;
    assert!(reason.contains("certificate can't be trusted: it has expired"), "{reason}");
}

#[tokio::test]
async fn a_server_id_replaces_the_host() {
    let authority = TestAuthority::new("ca");
    let id = "spiffe://prod.example/waypost";
    let folder = authority.folder_of_roots();
    let door = Door::new();
    let address = door.listen(server_tls(&authority.issue(id), &[])).await;
    let expecting = |id: &str| client(address, credentials(folder.path()).server_id(id));
    drop(register(&expecting(id)).await);
    let other = "spiffe://prod.example/other";
    let reason = unreachable(&expecting(other)).await;
    assert!(reason.contains(&format!("it is not for {other}")), "{reason}");
    // The right host does not help, and neither does the right id of another authority.
    door.renew(server_tls(&authority.issue(HOST), &[]));
    let reason = unreachable(&expecting(id)).await;
    assert!(reason.contains(&format!("it is not for {id}")), "{reason}");
    door.renew(server_tls(&TestAuthority::new("other").issue(id), &[]));
    let reason = unreachable(&expecting(id)).await;
    assert!(reason.contains("no trusted CA signed it"), "{reason}");
}

#[tokio::test]
async fn a_server_without_tls_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ =
                tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 No\r\n\r\n").await;
            drop(stream);
        }
    });
    let authority = TestAuthority::new("ca");
    let folder = authority.folder_of_roots();
    let reason = unreachable(&client(address, credentials(folder.path()))).await;
    assert!(reason.contains("speaks no TLS on this port"), "{reason}");
}
