//! The modes of a server: the callers that it lets in by its address, TLS and policy.

use http::header::{HOST, HeaderName, ORIGIN};
use prost::Message;
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Code;
use waypost_client::proto::{
    DeregisterRequest, GetStatusRequest, Instance, RegisterRequest, admin_client::AdminClient,
};
use waypost_testing::{
    authority::TestAuthority,
    process::output,
    registry::{connect, ids, instance, register, register_request, resolve_all},
    wait::soon,
};

use super::support::{
    Answer, Place, Protocol, RawCaller, Reading, connect_tls, handshake_error, reason, serve,
    static_token, token_table, with_token,
};
use crate::support::{self, TestServer, waypost};

const REGISTER: &str = "waypost.v1.Registry/Register";
const DEREGISTER: &str = "waypost.v1.Registry/Deregister";
const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

fn registration(id: &str) -> Vec<u8> {
    register_request(instance("orders", id)).encode_to_vec()
}

fn removal(id: &str) -> Vec<u8> {
    let request = DeregisterRequest {
        service: "orders".to_owned(),
        id: id.to_owned(),
        ..DeregisterRequest::default()
    };
    request.encode_to_vec()
}

fn assert_wrong_authority(answer: &Answer, case: &str) {
    let wrong = (Code::PermissionDenied, Some("WRONG_AUTHORITY".to_owned()));
    assert_eq!(answer.outcome(), wrong, "{case}");
}

/// The requests that a page in a browser can send to a port of its machine.
fn foreign(server: &TestServer, protocol: Protocol) -> Vec<(String, RawCaller)> {
    let caller = || RawCaller::new(server.address(), protocol, None);
    let mut callers = Vec::new();
    for host in ["evil.example", "evil.example:7510", "10.0.0.1", "localhost.evil.example"] {
        let rebound = caller().to(host);
        callers.push((format!("{protocol:?} to {host}"), rebound));
        let origin = format!("https://{host}");
        callers.push((format!("{protocol:?} from {origin}"), caller().header(ORIGIN, &origin)));
    }
    for origin in ["null", "file://", ""] {
        callers.push((format!("{protocol:?} from {origin:?}"), caller().header(ORIGIN, origin)));
    }
    let twice = caller().header(ORIGIN, "http://localhost").header(ORIGIN, "https://evil.example");
    callers.push((format!("{protocol:?} of two origins"), twice));
    if protocol == Protocol::Http2 {
        let host = caller().header(HOST, "evil.example");
        callers.push(("Http2 with another host beside its authority".to_owned(), host));
    }
    callers
}

#[tokio::test]
async fn web_page_changes_nothing_at_an_open_port() {
    let server = TestServer::start().await;
    register(&mut server.registry(), instance("orders", "a")).await;
    for protocol in PROTOCOLS {
        for (case, mut caller) in foreign(&server, protocol) {
            for (method, message) in [(DEREGISTER, removal("a")), (REGISTER, registration("b"))] {
                assert_wrong_authority(&caller.grpc(method, &message, Reading::All).await, &case);
            }
            // A page may send text to any server.
            caller.content_type = "text/plain";
            let body = registration("b").into();
            let answer = caller.send("/", body, Reading::All).await.expect("a response");
            assert_eq!(answer.http.as_u16(), 421, "{case}");
            assert!(String::from_utf8_lossy(&answer.body).contains("WRONG_AUTHORITY"), "{case}");
        }
    }
    let there = resolve_all(&mut server.discovery(), "orders").await.instances;
    assert_eq!(ids(&there), ["a"]);
}

#[tokio::test]
async fn every_name_of_this_machine_reaches_an_open_port() {
    let server = TestServer::start().await;
    let port = server.address().port();
    for protocol in PROTOCOLS {
        for host in ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.1.2.3", "[::1]"] {
            for authority in [host.to_owned(), format!("{host}:{port}")] {
                let mut caller = RawCaller::new(server.address(), protocol, None)
                    .to(&authority)
                    .header(ORIGIN, &format!("http://{authority}"));
                let answer = caller.grpc(REGISTER, &registration("a"), Reading::All).await;
                assert_eq!(answer.status.code(), Code::Ok, "{protocol:?} {authority}");
            }
        }
    }
}

#[tokio::test]
async fn loopback_with_a_policy_takes_tokens_and_names_of_this_machine() {
    let rule = "[[allow]]\nwho = 'token/ci'\nmay = 'register'\non = '*/*'\n";
    let place = Place::new(&format!("{rule}{}", token_table("ci", "")));
    let server = serve(place.clear_text()).await;
    for protocol in PROTOCOLS {
        let caller = || RawCaller::new(server.address(), protocol, None);
        let message = registration("a");
        let answer = caller().grpc(REGISTER, &message, Reading::All).await;
        let nobody = (Code::Unauthenticated, Some("NO_CREDENTIALS".to_owned()));
        assert_eq!(answer.outcome(), nobody, "{protocol:?}");
        let mut known = caller().token(&static_token("ci"));
        let answer = known.grpc(REGISTER, &message, Reading::All).await;
        assert_eq!(answer.status.code(), Code::Ok, "{protocol:?}");
        for (case, caller) in foreign(&server, protocol) {
            let mut caller = caller.token(&static_token("ci"));
            assert_wrong_authority(&caller.grpc(REGISTER, &message, Reading::All).await, &case);
        }
        // Requests that are not gRPC.
        let mut text = caller();
        text.content_type = "text/plain";
        let answer = text.send("/", message.into(), Reading::All).await.expect("a response");
        assert_eq!(answer.http.as_u16(), 404, "no page yet");
        let mut wrong = caller().token(&static_token("other"));
        wrong.content_type = "text/plain";
        let answer = wrong.send("/", Vec::new().into(), Reading::All).await.expect("a response");
        let asks = answer.headers.get("www-authenticate").map(|value| value.as_bytes());
        assert_eq!((answer.http.as_u16(), asks), (401, Some(&b"Bearer"[..])), "{protocol:?}");
    }
}

#[tokio::test]
async fn credentials_that_are_malformed_are_refused() {
    let rule = "[[allow]]\nwho = 'anonymous'\nmay = ['probe', 'discover']\non = '*/*'\n";
    let place = Place::new(&format!("{rule}{}", token_table("ci", "")));
    let server = serve(place.clear_text()).await;
    let authorization = HeaderName::from_static("authorization");
    let token = static_token("ci");
    for protocol in PROTOCOLS {
        for (values, expected) in [
            (vec![format!("Bearer {token}"); 2], "GIVEN_TWICE"),
            (vec![format!("Bearer {token}"), String::new()], "GIVEN_TWICE"),
            (vec![format!("Bearer {token}, Bearer {token}")], "TOKEN_INVALID"),
            (vec![format!("Basic {token}")], "TOKEN_INVALID"),
            (vec![token.clone()], "TOKEN_INVALID"),
            (vec!["Bearer".to_owned()], "TOKEN_INVALID"),
            (vec![String::new()], "TOKEN_INVALID"),
            (vec![format!("Bearer {token}x")], "TOKEN_INVALID"),
            (vec![format!("Bearer {}", token.to_uppercase())], "TOKEN_INVALID"),
        ] {
            let mut caller = RawCaller::new(server.address(), protocol, None);
            for value in &values {
                caller = caller.header(authorization.clone(), value);
            }
            let answer = caller.grpc("grpc.health.v1.Health/Check", &[], Reading::All).await;
            let expected = (Code::Unauthenticated, Some(expected.to_owned()));
            // Never `anonymous`, who may do this.
            assert_eq!(answer.outcome(), expected, "{protocol:?} case {}", values.len());
        }
    }
}

#[tokio::test]
async fn policy_that_is_not_enforced_lets_everyone_through() {
    let rule = "[[allow]]\nwho = 'token/ci'\nmay = 'register'\non = 'shop/*'\n";
    let text = format!("enforce = false\nrevoked = ['token/ci']\n{rule}{}", token_table("ci", ""));
    let place = Place::new(&text);
    let directory = place.path().to_str().expect("UTF-8");
    let policy = format!("{directory}/policy.toml");
    let mut process = support::serve().log("info").arguments(["--policy", &policy]).start().await;
    process.logs("policy not enforced: requests that it refuses are let through").await;
    for protocol in PROTOCOLS {
        let caller = || RawCaller::new(process.address(), protocol, None);
        let twice = caller().token(&static_token("ci")).token(&static_token("ci"));
        for (case, mut caller) in [
            ("anonymous", caller()),
            ("revoked", caller().token(&static_token("ci"))),
            ("unknown", caller().token(&static_token("other"))),
            ("twice", twice),
        ] {
            let answer = caller.grpc(REGISTER, &registration("a"), Reading::All).await;
            assert_eq!(answer.status.code(), Code::Ok, "{protocol:?} {case}");
            let answer = caller.grpc(DEREGISTER, &removal("a"), Reading::All).await;
            assert_eq!(answer.status.code(), Code::Ok, "{protocol:?} {case}");
        }
        let mut page = caller().header(ORIGIN, "https://evil.example");
        let answer = page.grpc(REGISTER, &registration("a"), Reading::All).await;
        assert_wrong_authority(&answer, "a page, which no policy lets through");
    }
    // Records of refusals are written at the stop at the latest.
    process.signal(Signal::TERM);
    assert!(process.end().await.success());
    for reason in ["NO_CREDENTIALS", "REVOKED", "TOKEN_INVALID"] {
        process.logs(reason).await;
    }
    assert!(!process.log().contains(&static_token("ci")), "a token in the log");
}

#[tokio::test]
async fn open_port_of_this_machine_is_logged() {
    let mut process = support::serve().log("info").start().await;
    process.logs("no policy: every program on this machine may do everything").await;
}

/// Runs `waypost serve` with arguments that must not start it; returns its errors.
async fn refusal(place: &Place, arguments: &[&str]) -> String {
    let mut command = waypost(place.path());
    command.args(["serve", "--store", "memory"]).args(arguments);
    // Not one of its variables, by design.
    command.env("WAYPOST_INSECURE", "true");
    let output = output(command).await;
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(64), "{arguments:?}: {stderr}");
    stderr
}

#[tokio::test]
async fn server_that_would_let_strangers_in_does_not_start() {
    let place = Place::new("");
    let without_policy = refusal(&place, &["--listen", "127.0.0.1:0", "--tls", "tls"]).await;
    assert!(without_policy.contains("--tls needs --policy"), "{without_policy}");
    let without_policy = refusal(&place, &["--listen", "0.0.0.0:0", "--tls", "tls"]).await;
    assert!(without_policy.contains("--tls needs --policy"), "{without_policy}");
    let policy = ["--policy", "policy.toml"];
    let tls = ["--policy", "policy.toml", "--tls", "tls"];
    let mut refusals = Vec::new();
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let listen = ["--listen", listen];
        refusals.push(refusal(&place, &listen).await);
        refusals.push(refusal(&place, &[&listen[..], &policy].concat()).await);
    }
    place.write_policy("enforce = false\n");
    refusals.push(refusal(&place, &[&["--listen", "0.0.0.0:0"][..], &tls].concat()).await);
    assert!(refusals.iter().take(4).all(|text| text.contains("without TLS")), "{refusals:?}");
    assert!(refusals[4].contains("`enforce = false`"), "{refusals:?}");
    for text in refusals {
        for way_out in ["waypost ca init", "listen on loopback", "--insecure"] {
            assert!(text.contains(way_out), "{way_out} in {text}");
        }
    }
    place.write_policy("enforced = true\n[[allow]]\nwho = 7\n");
    let wrong = refusal(&place, &[&["--listen", "127.0.0.1:0"][..], &policy].concat()).await;
    assert!(wrong.contains("policy.toml: line 1") && wrong.contains("line 3"), "{wrong}");
}

#[tokio::test]
async fn insecure_lets_everyone_in_and_warns() {
    let listen = "0.0.0.0:0".parse().expect("an address");
    let arguments = ["--insecure"];
    let mut process = support::serve().listen(listen).arguments(arguments).start().await;
    process.logs("--insecure: everyone who reaches this port may do everything").await;
    let address = ([127, 0, 0, 1], process.address().port()).into();
    for protocol in PROTOCOLS {
        let caller = RawCaller::new(address, protocol, None).header(ORIGIN, "https://a.example");
        let mut caller = caller.to("registry.example");
        let answer = caller.grpc(REGISTER, &registration("a"), Reading::All).await;
        assert_eq!(answer.status.code(), Code::Ok, "{protocol:?}");
    }
    let status = AdminClient::new(connect(address).await).get_status(GetStatusRequest {}).await;
    let access = status.expect("a status").into_inner().access.expect("access");
    assert!(access.insecure && !access.enforced, "{access:?}");
}

const SERVICE: &str = "spiffe://test/ns/shop/sa/orders";
const OWN: &str = "[[allow]]\nwho = 'spiffe://test/ns/{namespace}/sa/{service}'\n\
    may = 'register'\non = '{namespace}/{service}'\nhosts = 'peer'\n";

#[tokio::test]
async fn tls_with_a_policy_takes_certificates_and_tokens_of_any_host() {
    let text = format!("{OWN}[[allow]]\nwho = 'token/ci'\nmay = 'status'\non = '*/*'\n");
    let place = Place::new(&format!("{text}{}", token_table("ci", "")));
    let server = serve(place.with_tls()).await;
    let own = Instance {
        namespace: "shop".to_owned(),
        host: "127.0.0.1".to_owned(),
        ..instance("orders", "a")
    };
    let message = RegisterRequest { instance: Some(own), ..RegisterRequest::default() };
    let identity = place.authority.issue(SERVICE);
    for protocol in PROTOCOLS {
        let tls = place.authority.connector(Some(&identity));
        let caller = RawCaller::new(server.address(), protocol, Some(tls));
        // Where a proxy or a load balancer has a name of its own.
        let mut caller = caller.to("registry.example").header(ORIGIN, "https://console.example");
        let answer = caller.grpc(REGISTER, &message.encode_to_vec(), Reading::All).await;
        assert_eq!(answer.status.code(), Code::Ok, "{protocol:?}: {:?}", answer.status);
    }
    let both = connect_tls(server.address(), place.authority.connector(Some(&identity))).await;
    let mut both = AdminClient::new(with_token(both, &static_token("ci")));
    both.get_status(GetStatusRequest {}).await.expect("the token identifies the caller");
    let alone = connect_tls(server.address(), place.authority.connector(Some(&identity))).await;
    let refused = AdminClient::new(alone).get_status(GetStatusRequest {}).await;
    let refused = refused.expect_err("the certificate's name may not");
    assert_eq!(reason(&refused).as_deref(), Some("NOT_ALLOWED"));
}

#[tokio::test]
async fn handshake_needs_a_certificate_where_nothing_else_admits() {
    let place = Place::without_issuer(OWN);
    let server = serve(place.with_tls()).await;
    let authority = &place.authority;
    let other = TestAuthority::new("another authority");
    let expired = authority.issue_expired(SERVICE);
    for (identity, alert) in [
        (None, "CertificateRequired"),
        (Some(other.issue(SERVICE)), "UnknownCA"),
        (Some(expired), "CertificateExpired"),
    ] {
        let tls = authority.connector(identity.as_ref());
        let refused = handshake_error(server.address(), tls).await;
        assert!(refused.contains(alert), "{alert}: {refused}");
    }
}

/// Sends bytes, and reads what comes until the server closes.
async fn exchange(server: &TestServer, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address()).await.expect("connected");
    stream.write_all(bytes).await.expect("sent");
    let mut answer = Vec::new();
    // A reset means that the server closed with bytes unread.
    let _reset = soon("the server closes", stream.read_to_end(&mut answer)).await;
    answer
}

#[tokio::test]
async fn clear_text_on_a_tls_port_is_refused_unread() {
    let place = Place::new(OWN);
    let server = serve(place.with_tls()).await;
    let http2 = exchange(&server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    assert_eq!(http2[..9], *b"\0\0\0\x04\0\0\0\0\0", "SETTINGS");
    assert_eq!((http2[12], http2[13]), (7, 0), "GOAWAY");
    assert_eq!(http2[22..26], [0, 0, 0, 12], "INADEQUATE_SECURITY");
    assert_eq!(&http2[26..], b"this port speaks TLS only");
    for request in [&b"POST /waypost.v1.Registry/Register HTTP/1.1\r\n"[..], b"GET / HTTP/1.0\r\n"]
    {
        let answer = String::from_utf8(exchange(&server, request).await).expect("UTF-8");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.ends_with("this port speaks TLS only\n"), "{answer}");
    }
}
