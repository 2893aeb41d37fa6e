//! Calls over TLS: only servers with a certificate for the service are called.

use std::{net::SocketAddr, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::{
    io::{DuplexStream, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Request, Response, Status};
use waypost_client::{BalancedChannel, Client, Tls, TlsError};
use waypost_testing::{
    authority::{TestAuthority, server_tls},
    greeter::{
        GreetRequest, GreetResponse,
        greeter_client::GreeterClient,
        greeter_server::{Greeter, GreeterServer},
    },
};

use crate::support::{Fake, Network, Process};

/// Responds with the authority of the call.
struct Replica;

#[tonic::async_trait]
impl Greeter for Replica {
    async fn greet(
        &self,
        request: Request<GreetRequest>,
    ) -> Result<Response<GreetResponse>, Status> {
        let greeting = format!("hello {}", request.into_inner().name);
        Ok(Response::new(GreetResponse { greeting, instance: "a".into() }))
    }
}

/// A replica of `greeter` behind TLS. tonic knows pipes as connections, but not these streams.
async fn serve(tls: TlsAcceptor) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (opened, incoming) = mpsc::channel::<DuplexStream>(8);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = tls.accept(stream).await else { continue };
            let (mut near, far) = tokio::io::duplex(64 * 1024);
            tokio::spawn(async move { copy_bidirectional(&mut stream, &mut near).await });
            opened.send(far).await.unwrap();
        }
    });
    let server = tonic::transport::Server::builder().add_service(GreeterServer::new(Replica));
    let incoming = ReceiverStream::new(incoming).map(Ok::<_, std::io::Error>);
    tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
    address
}

/// A channel to the replica at `address`, registered without TLS.
fn channel(tls: Tls, address: SocketAddr) -> (BalancedChannel, Process) {
    let (network, fake) = (Network::default(), Fake::new());
    let process = fake.serve(&network, "registry");
    fake.place("greeter", "a", "10.0.0.1");
    let connector = tower::service_fn(move |uri: http::Uri| {
        let network = network.clone();
        async move {
            if uri.host() == Some("registry") {
                return network.connect(uri).await;
            }
            assert_eq!(uri.host(), Some("10.0.0.1"));
            TcpStream::connect(address).await.map(TokioIo::new)
        }
    });
    let builder = Client::builder().connector(connector).registry("http://registry:7510");
    (builder.tls(tls).build().unwrap().channel("greeter"), process)
}

async fn greet(tls: Tls, address: SocketAddr) -> Result<String, Status> {
    let (channel, _registry) = channel(tls, address);
    let calling = async {
        let request = GreetRequest { name: "you".into() };
        let answer = GreeterClient::new(channel).greet(request).await?;
        Ok(answer.into_inner().greeting)
    };
    tokio::time::timeout(Duration::from_secs(20), calling).await.expect("it takes too long")
}

#[tokio::test]
async fn instance_with_the_name_of_its_service_is_trusted_at_any_address() {
    let authority = TestAuthority::new("ca");
    let address = serve(server_tls(&authority.issue("greeter"), &[])).await;
    let tls = Tls::new(authority.pem().as_bytes()).unwrap();
    assert_eq!(greet(tls, address).await.unwrap(), "hello you");
}

#[tokio::test]
async fn instance_with_another_name_is_not_called() {
    let authority = TestAuthority::new("ca");
    for name in ["orders", "10.0.0.1"] {
        let address = serve(server_tls(&authority.issue(name), &[])).await;
        let tls = Tls::new(authority.pem().as_bytes()).unwrap();
        let status = greet(tls, address).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains("certificate"), "{status:?}");
    }
}

#[tokio::test]
async fn expected_name_can_be_configured() {
    let authority = TestAuthority::new("ca");
    let address = serve(server_tls(&authority.issue("backends.internal"), &[])).await;
    let tls = Tls::new(authority.pem().as_bytes()).unwrap();
    let named = tls.clone().server_name("backends.internal").unwrap();
    assert_eq!(greet(named, address).await.unwrap(), "hello you");
    assert_eq!(greet(tls, address).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn untrusted_instance_is_not_called() {
    let address = serve(server_tls(&TestAuthority::new("other").issue("greeter"), &[])).await;
    let tls = Tls::new(TestAuthority::new("ca").pem().as_bytes()).unwrap();
    let status = greet(tls, address).await.unwrap_err();
    assert!(status.message().contains("certificate"), "{status:?}");
}

#[tokio::test]
async fn client_certificate_is_sent_on_request() {
    let authority = TestAuthority::new("ca");
    let address = serve(server_tls(&authority.issue("greeter"), &[&authority])).await;
    let nameless = Tls::new(authority.pem().as_bytes()).unwrap();
    let (certificate, key) = authority.issue("caller");
    let (certificate, key) = (certificate.pem(), key.serialize_pem());
    let known = nameless.clone().identity(certificate.as_bytes(), key.as_bytes()).unwrap();
    assert_eq!(greet(known, address).await.unwrap(), "hello you");
    assert_eq!(greet(nameless, address).await.unwrap_err().code(), Code::Unavailable);
}

#[test]
fn invalid_certificate_key_and_name_are_refused() {
    let authority = TestAuthority::new("ca");
    let pem = authority.pem();
    let tls = Tls::new(pem.as_bytes()).unwrap();
    let (certificate, key) = authority.issue("caller");
    let (certificate, key) = (certificate.pem(), key.serialize_pem());
    let another = authority.issue("caller").1.serialize_pem();
    let damaged = pem.replacen('M', "!", 1);
    for roots in ["", "no PEM", &key, &damaged, "-----BEGIN CERTIFICATE-----\nAAAA\n"] {
        let refused = Tls::new(roots.as_bytes());
        assert!(matches!(refused, Err(TlsError::BadRoots { .. })), "{roots:?}");
    }
    for (chain, key) in [("", &*key), (&certificate, ""), (&certificate, &another), (&key, &key)] {
        let refused = tls.clone().identity(chain.as_bytes(), key.as_bytes());
        assert!(matches!(refused, Err(TlsError::BadIdentity { .. })));
    }
    for name in ["", "no name", "a:1", "-"] {
        let refused = tls.clone().server_name(name);
        assert!(matches!(refused, Err(TlsError::BadName { .. })), "{name:?}");
    }
    // Nothing secret is shown.
    let known = tls.identity(certificate.as_bytes(), key.as_bytes()).unwrap();
    assert_eq!(format!("{known:?}"), "Tls { server_name: None, .. }");
}
