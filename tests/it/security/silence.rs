//! Nothing that a caller proves itself with, and no value of metadata, is in a log, an audit record
//! or an error: everything is done once, at the level `trace`, and each place is searched for each
//! secret.

use std::{collections::BTreeMap, fs, net::SocketAddr, time::Duration};

use prost::Message;
use rcgen::{Certificate, KeyPair};
use rustix::process::Signal;
use sha2::{Digest, Sha256};
use tokio_rustls::TlsConnector;
use waypost_auth::testing::SigningKey;
use waypost_client::proto::{
    DeregisterRequest, HeartbeatRequest, Instance, ListServicesRequest, RegisterRequest,
    ReleaseProtectionRequest, ResolveRequest, UpdateRequest,
};
use waypost_testing::{
    authority::TestAuthority,
    process::RegistryProcess,
    registry::{instance, register_request, watch_of},
};

use super::support::{
    Place, Protocol, RawCaller, Reading, after, handshake_error, jwt, jwt_by, static_token,
    token_table,
};
use crate::support::serve;

const ORDERS: &str = "spiffe://test.example/ns/default/sa/orders";
const VALUE: &str = "metadata-value-58212";

const RULES: &str = "
revoked = ['token/revoked']
[[allow]]
who = ['token/all', 'token/revoked', 'k8s/all', 'spiffe://test.example/*/*/*/*']
may = ['discover', 'register', 'operate', 'status', 'backup']
on = '*/*'
[[allow]]
who = ['token/none', 'k8s/none', 'dns/none.example']
may = ['discover']
on = 'other/*'
[[limit]]
who = 'token/all'
writes = { per_second = 1, burst = 4 }
";

fn policy() -> String {
    ["all", "none", "revoked"]
        .iter()
        .fold(RULES.to_owned(), |text, name| text + &token_table(name, ""))
}

/// The private key, as a file has it and without its lines.
fn key_texts((_, key): &Identity) -> Vec<String> {
    pem_texts(&key.serialize_pem())
}

fn pem_texts(pem: &str) -> Vec<String> {
    let lines = pem.lines().filter(|line| !line.starts_with("-----"));
    lines.filter(|line| line.len() > 20).map(ToOwned::to_owned).collect()
}

/// A request of each method, with the metadata where there is some.
fn requests() -> Vec<(&'static str, Vec<u8>)> {
    let mut orders = instance("orders", "a");
    orders.metadata.insert("key".to_owned(), VALUE.to_owned());
    let update = |instance: Instance, path: &str| UpdateRequest {
        service: "orders".to_owned(),
        id: "a".to_owned(),
        instance: Some(instance),
        update_mask: Some(prost_types::FieldMask { paths: vec![path.to_owned()] }),
        ..UpdateRequest::default()
    };
    let mut too_long = orders.clone();
    too_long.metadata.insert("long".to_owned(), VALUE.repeat(300));
    let foreign = Instance { service: "payments".to_owned(), ..orders.clone() };
    let by_lease = DeregisterRequest { lease_id: 1 << 40 | 7, ..DeregisterRequest::default() };
    let resolve = ResolveRequest {
        service: "orders".to_owned(),
        filter: Some(waypost_client::proto::Filter {
            metadata: [("key".to_owned(), VALUE.to_owned())].into(),
            ..Default::default()
        }),
        ..ResolveRequest::default()
    };
    vec![
        ("waypost.v1.Registry/Register", register_request(orders.clone()).encode_to_vec()),
        ("waypost.v1.Registry/Register", register_request(too_long.clone()).encode_to_vec()),
        ("waypost.v1.Registry/Register", register_request(foreign).encode_to_vec()),
        ("waypost.v1.Registry/Register", RegisterRequest::default().encode_to_vec()),
        ("waypost.v1.Registry/Update", update(orders, "metadata").encode_to_vec()),
        ("waypost.v1.Registry/Update", update(too_long, "metadata").encode_to_vec()),
        ("waypost.v1.Registry/Heartbeat", HeartbeatRequest { lease_ids: vec![7] }.encode_to_vec()),
        ("waypost.v1.Registry/KeepAlive", HeartbeatRequest { lease_ids: vec![7] }.encode_to_vec()),
        ("waypost.v1.Registry/Deregister", by_lease.encode_to_vec()),
        ("waypost.v1.Discovery/Resolve", resolve.encode_to_vec()),
        ("waypost.v1.Discovery/ListServices", ListServicesRequest::default().encode_to_vec()),
        ("waypost.v1.Discovery/Watch", watch_of(&["orders"]).encode_to_vec()),
        ("waypost.v1.Discovery/Watch", watch_of(&[]).encode_to_vec()),
        ("waypost.v1.Admin/GetStatus", Vec::new()),
        ("waypost.v1.Admin/WhoAmI", Vec::new()),
        ("waypost.v1.Admin/Backup", Vec::new()),
        ("waypost.v1.Admin/ReleaseProtection", ReleaseProtectionRequest::default().encode_to_vec()),
        ("grpc.health.v1.Health/Check", Vec::new()),
        ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Vec::new()),
        ("waypost.v1.Registry/None", Vec::new()),
        // No message at all: the bytes of the value.
        ("waypost.v1.Registry/Register", VALUE.as_bytes().to_vec()),
    ]
}

/// Calls everything; returns the texts and details of the errors.
async fn call_all(mut caller: RawCaller) -> Vec<u8> {
    let mut errors = Vec::new();
    for (method, message) in requests() {
        let reading = match method.rsplit_once('/').expect("a method").1 {
            "Watch" | "KeepAlive" | "ServerReflectionInfo" => Reading::FirstMessage,
            _ => Reading::All,
        };
        let path = format!("/{method}");
        let body = waypost_testing::http2::framed(&message);
        // A connection that is refused for good is an error without a response.
        let Ok(answer) = caller.send(&path, body, reading).await else { continue };
        errors.extend_from_slice(answer.status.message().as_bytes());
        errors.extend_from_slice(answer.status.details());
        errors.extend_from_slice(format!("{:?}", answer.headers).as_bytes());
    }
    errors
}

/// What is searched, by its name, and the secrets by theirs.
fn assert_silent(places: &BTreeMap<&str, Vec<u8>>, secrets: &BTreeMap<String, String>) {
    for (place, bytes) in places {
        for (name, secret) in secrets {
            let found = bytes.windows(secret.len()).position(|window| window == secret.as_bytes());
            let Some(at) = found else { continue };
            let around = String::from_utf8_lossy(&bytes[at.saturating_sub(200)..at]).into_owned();
            panic!("{name} is in the {place}, after: {around}");
        }
    }
}

type Identity = (Certificate, KeyPair);

/// Calls everything with each credential, and with those that are malformed. Returns the errors.
async fn call_by_all(
    address: SocketAddr,
    place: &Place,
    identities: &[Identity],
    tokens: &[String],
) -> Vec<u8> {
    let tls = |identity| -> Option<TlsConnector> { Some(place.authority.connector(identity)) };
    let mut errors = Vec::new();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let caller = |identity| RawCaller::new(address, protocol, tls(identity));
        for identity in &identities[..2] {
            errors.extend(call_all(caller(Some(identity))).await);
        }
        errors.extend(call_all(caller(None)).await);
        for token in tokens {
            errors.extend(call_all(caller(None).token(token)).await);
        }
        let both = caller(Some(&identities[0])).token(&tokens[3]);
        errors.extend(call_all(both).await);
        errors.extend(call_all(caller(None).token(&tokens[0]).token(&tokens[4])).await);
        for value in
            [format!("Basic {}", tokens[0]), tokens[0].clone(), format!("Bearer {}x", tokens[4])]
        {
            let name = http::header::AUTHORIZATION;
            errors.extend(call_all(caller(None).header(name, &value)).await);
        }
    }
    for identity in &identities[2..] {
        let refused = handshake_error(address, place.authority.connector(Some(identity)));
        errors.extend_from_slice(refused.await.as_bytes());
    }

    errors
}

/// Files with errors in what is secret, and good ones again. Returns the server's key.
async fn break_files(place: &Place, process: &mut RegistryProcess) -> String {
    let sha256 = format!("{:x}", Sha256::digest(static_token("all")));
    let twice = token_table("all", "").replace("name = 'all'", "name = 'again'");
    let cut = token_table("cut", "")
        .replace(&format!("{:x}", Sha256::digest(static_token("cut"))), &sha256[..63]);
    let as_text = format!("[[token]]\nname = 'text'\nsha256 = '{}'\n", static_token("all"));
    place.write_policy(&format!("{}{twice}{cut}{as_text}", policy()));
    process.logs("invalid policy or certificates").await;
    place.write_policy(&policy());
    let key_file = place.tls().join("tls.key");
    let key = fs::read_to_string(&key_file).unwrap();
    fs::write(&key_file, &key[..key.len() - 60]).unwrap();
    process.logs("tls.key").await;
    fs::write(&key_file, &key).unwrap();
    process.logs("policy and certificates in force").await;
    key
}

fn secrets(tokens: &[String], key: &str, identities: &[Identity]) -> BTreeMap<String, String> {
    let mut secrets = BTreeMap::from([("the metadata".to_owned(), VALUE.to_owned())]);
    let mut hide = |name: &str, texts: Vec<String>| {
        for (number, text) in texts.into_iter().enumerate() {
            assert!(text.len() >= 20, "{name} {number} is too short to search for");
            secrets.insert(format!("{name} {number}"), text);
        }
    };
    for (number, token) in tokens.iter().enumerate() {
        let signature = token.rsplit_once('.').map(|(_, signature)| signature.to_owned());
        let hash = format!("{:x}", Sha256::digest(token));
        // As it is cut in the policy with errors.
        let texts = [token.clone(), hash[..63].to_owned()].into_iter().chain(signature);
        hide(&format!("token {number}"), texts.collect());
    }
    hide("the server's key", pem_texts(key));
    for identity in identities {
        hide("a caller's key", key_texts(identity));
    }
    secrets
}

#[tokio::test]
async fn no_secret_is_in_a_log_a_record_or_an_error() {
    let place = Place::new(&policy());
    let directory = place.path().to_path_buf();
    let audit = directory.join("audit");
    let arguments = [
        "--tls".into(),
        place.tls().into_os_string(),
        "--policy".into(),
        place.policy().into_os_string(),
        "--audit".into(),
        audit.clone().into_os_string(),
    ];
    let mut process =
        serve().disk(directory.join("data")).log("trace").arguments(arguments).start().await;
    let other = TestAuthority::new("another authority");
    let identities = [
        place.authority.issue(ORDERS),
        place.authority.issue("none.example"),
        place.authority.issue_expired(ORDERS),
        other.issue(ORDERS),
    ];
    let tokens = [
        static_token("all"),
        static_token("none"),
        static_token("revoked"),
        static_token("unknown"),
        jwt("all", after(600)),
        jwt("none", after(600)),
        jwt("all", after(0) - Duration::from_secs(600)),
        jwt_by(&SigningKey::p384(), "all", after(600)),
    ];

    let errors = call_by_all(process.address(), &place, &identities, &tokens).await;
    let key = break_files(&place, &mut process).await;
    process.signal(Signal::TERM);
    assert_eq!(process.end().await.code(), Some(0));
    process.logs("stopped").await;

    let secrets = secrets(&tokens, &key, &identities);
    let places = BTreeMap::from([
        ("log", process.log().into_bytes()),
        ("audit file", fs::read(&audit).unwrap()),
        ("errors", errors),
    ]);
    // The search finds what is there.
    let is_in = |place: &str, text: &str| String::from_utf8_lossy(&places[place]).contains(text);
    assert!(is_in("audit file", "token/all") && is_in("audit file", "TOO_MANY_WRITES"));
    for reason in ["CERTIFICATE_NOT_TRUSTED", "CREDENTIALS_EXPIRED", "REVOKED", "TOKEN_INVALID"] {
        assert!(is_in("audit file", reason), "{reason}");
    }
    assert!(is_in("log", "TRACE") && is_in("errors", "NOT_ALLOWED"));
    assert_silent(&places, &secrets);
}
