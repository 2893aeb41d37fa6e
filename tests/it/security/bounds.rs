//! The times of access (S4): from a file to its effect, from the effect to the end of a stream, and
//! from the end of a credential to that of its streams. Prints them; the deadlines are those of a
//! busy machine.

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use tokio::time::Instant;
use tonic::{Code, Status, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use waypost_client::proto::{
    HeartbeatRequest, WatchRequest, discovery_client::DiscoveryClient,
    registry_client::RegistryClient,
};
use waypost_testing::{authority::TestAuthority, registry::ids, wait::soon};

use super::support::{
    Place, Protocol, RawCaller, Reading, Tenant, after, connect_tls, end_of, jwt, reason, serve,
    token_table,
};
use crate::support::TestServer;

const LONG: u64 = 300_000;
/// The bound in which a file is in force is 2 s, and that in which a stream ends 1 s. A busy
/// machine gets as much again and more.
const IN_FORCE_MAX: Duration = Duration::from_secs(10);
const END_MAX: Duration = Duration::from_secs(5);
const CONNECTIONS: usize = 50;
const WATCHES_EACH: usize = 20;
const EVERYTHING: &str = "['discover', 'register']";
const WORKLOAD: &str = "spiffe://test/ns/shop/sa/orders";

/// A policy with an operator, and further text.
fn policy(more: &str) -> String {
    let may = "['discover', 'register', 'status']";
    let admin = format!("[[allow]]\nwho = 'token/admin'\nmay = {may}\non = '*/*'\n");
    format!("{more}{admin}{}{}", token_table("admin", ""), token_table("ci", ""))
}

fn allow(who: &str, may: &str) -> String {
    format!("[[allow]]\nwho = '{who}'\nmay = {may}\non = 'shop/*'\n")
}

fn outcome(status: &Status) -> (Code, Option<String>) {
    (status.code(), reason(status))
}

fn denied() -> (Code, Option<String>) {
    (Code::PermissionDenied, Some("NOT_ALLOWED".to_owned()))
}

fn unauthenticated(reason: &str) -> (Code, Option<String>) {
    (Code::Unauthenticated, Some(reason.to_owned()))
}

/// Prints a time, and checks it against the deadline of a busy machine.
fn print_within(what: &str, took: Duration, max: Duration) {
    eprintln!("{what}: {took:.0?}");
    assert!(took < max, "{what}: {took:?}");
}

/// Puts a policy into force. Returns the time since when it is, and prints how long it took.
async fn change(place: &Place, admin: &Tenant, text: &str) -> Instant {
    let epoch = admin.epoch().await;
    place.write_policy(text);
    let written = Instant::now();
    admin.epoch_after(epoch).await;
    print_within("file written to policy in force", written.elapsed(), IN_FORCE_MAX);
    Instant::now()
}

#[tokio::test]
async fn stream_that_lost_its_right_ends() {
    let rights = allow("token/ci", EVERYTHING);
    let place = Place::new(&policy(&rights));
    let server = serve(place.clear_text()).await;
    let [admin, ci] =
        [Tenant::connect(&server, "admin").await, Tenant::connect(&server, "ci").await];
    ci.register("orders", "a", LONG, 0).await;
    let (mut one, mut all) = (ci.watch(&["orders"]).await.unwrap(), ci.watch(&[]).await.unwrap());
    let mut whole = admin.watch(&[]).await.unwrap();
    let mut renewals = ci.keep_alive().await;
    let in_force = change(&place, &admin, &policy(&allow("token/ci", "'register'"))).await;
    for watch in [&mut one, &mut all] {
        assert_eq!(outcome(&end_of(watch).await), denied());
    }
    print_within("policy in force to the end of watches", in_force.elapsed(), END_MAX);
    assert_eq!(outcome(&ci.watch(&[]).await.unwrap_err()), denied());
    // These streams did not need the right.
    assert!(renewals.renew(&[]).await.is_empty());
    ci.register("orders", "b", LONG, 0).await;
    let seen = soon("a change", whole.message()).await.expect("the stream goes on");
    assert!(seen.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_end_at_once() {
    let place = Place::new(&policy(&allow("token/ci", "'discover'")));
    let server = serve(place.clear_text()).await;
    let admin = Tenant::connect(&server, "admin").await;
    admin.register("orders", "a", LONG, LONG).await;
    let mut watches = Vec::new();
    for _ in 0..CONNECTIONS {
        let ci = Tenant::connect(&server, "ci").await;
        for service in [&["orders"][..], &[]].into_iter().cycle().take(WATCHES_EACH) {
            watches.push(ci.watch(service).await.expect("a watch"));
        }
    }
    let count = watches.len();
    // Read while the policy changes, as their callers would.
    let ends = tokio::spawn(join_all(
        watches.into_iter().map(|mut watch| async move { outcome(&end_of(&mut watch).await) }),
    ));
    let in_force = change(&place, &admin, &policy("")).await;
    assert!(ends.await.expect("no panic").iter().all(|end| *end == denied()));
    let what = format!("policy in force to the end of {count} watches");
    print_within(&what, in_force.elapsed(), END_MAX);
}

/// Opens each kind of stream as `ci`; ends when all of them have. Returns how they did.
async fn ends(ci: &Tenant, lease: u64) -> impl Future<Output = Vec<Status>> {
    let mut watch = ci.watch(&["orders"]).await.expect("a watch");
    let mut namespace = ci.watch(&[]).await.expect("a watch");
    let mut renewals = ci.keep_alive().await;
    assert!(renewals.renew(&[lease]).await.is_empty());
    let health = HealthClient::new(ci.channel()).watch(HealthCheckRequest::default()).await;
    let mut health = health.expect("a watch").into_inner();
    soon("the health", health.message()).await.expect("open");
    async move {
        vec![
            end_of(&mut watch).await,
            end_of(&mut namespace).await,
            renewals.end().await,
            soon("the end of a watch", health.message()).await.expect_err("an error"),
        ]
    }
}

#[tokio::test]
async fn streams_of_a_revoked_token_end_and_break_no_lease() {
    let rights = allow("token/ci", EVERYTHING);
    let place = Place::new(&policy(&rights));
    let server = serve(place.clear_text()).await;
    let [admin, ci] =
        [Tenant::connect(&server, "admin").await, Tenant::connect(&server, "ci").await];
    let lease = ci.register("orders", "a", LONG, 10).await;
    let ends = ends(&ci, lease).await;
    let revoked = format!("revoked = ['token/ci']\n{}", policy(&rights));
    let in_force = change(&place, &admin, &revoked).await;
    for end in ends.await {
        assert_eq!(outcome(&end), unauthenticated("REVOKED"));
    }
    print_within("token revoked to the end of streams", in_force.elapsed(), END_MAX);
    assert_eq!(outcome(&ci.watch(&[]).await.unwrap_err()), unauthenticated("REVOKED"));
    keeps(&admin, Tenant::connect(&server, "admin").await, "a").await;
}

/// Checks that an instance, whose stream the server ended, outlives one whose stream broke.
async fn keeps(admin: &Tenant, breaking: Tenant, id: &str) {
    let other = breaking.register("other", "broken", 15_000, 100).await;
    let mut stream = breaking.keep_alive().await;
    assert!(stream.renew(&[other]).await.is_empty());
    drop((stream, breaking));
    admin.sees("other", 0).await;
    // Its grace would have ended long before.
    assert_eq!(ids(&admin.instances("orders").await), [id]);
}

/// Opens streams, and checks that all end when the credential does, which is at `end`.
async fn expire(what: &str, tenant: Tenant, lease: u64, end: SystemTime) {
    let expired = unauthenticated("CREDENTIALS_EXPIRED");
    for status in ends(&tenant, lease).await.await {
        assert_eq!(outcome(&status), expired, "{what}");
    }
    let late = SystemTime::now().duration_since(end).expect("not before its end");
    print_within(&format!("end of a {what} to the end of its streams"), late, END_MAX);
    assert_eq!(outcome(&tenant.watch(&[]).await.unwrap_err()), expired, "{what}");
    let heartbeat = HeartbeatRequest { lease_ids: vec![lease] };
    let refused = tenant.registry().heartbeat(heartbeat).await.unwrap_err();
    assert_eq!(outcome(&refused), expired, "{what}");
}

#[tokio::test]
async fn streams_of_an_expired_token_end() {
    // A whole second, as files and tokens have it. Enough for a busy machine to open all streams.
    let text = humantime::format_rfc3339_seconds(after(5)).to_string();
    let end = humantime::parse_rfc3339(&text).expect("a time");
    let rights = allow("token/brief", EVERYTHING) + &allow("k8s/brief", EVERYTHING);
    let brief = token_table("brief", &format!("expires = {text}"));
    let place = Place::new(&policy(&format!("{rights}{brief}")));
    let server = serve(place.clear_text()).await;
    let admin = Tenant::connect(&server, "admin").await;
    let lease = admin.register("orders", "a", LONG, 10).await;
    // Clocks may differ by 30 s for a signed token.
    let signed = jwt("brief", end - Duration::from_secs(30));
    let signed = Tenant::with_token(&server, &signed).await;
    let fixed = Tenant::connect(&server, "brief").await;
    tokio::join!(
        expire("static token", fixed, lease, end),
        expire("signed token", signed, lease, end),
    );
    keeps(&admin, Tenant::connect(&server, "admin").await, "a").await;
}

/// Callers with the certificate of a workload: one with tonic, and one whose connection shows.
struct Workload {
    channel: Channel,
    raw: RawCaller,
}

impl Workload {
    async fn connect(place: &Place, server: &TestServer, end: Option<SystemTime>) -> Self {
        let identity = match end {
            Some(end) => place.authority.issue_until(WORKLOAD, end),
            None => place.authority.issue(WORKLOAD),
        };
        let tls = || place.authority.connector(Some(&identity));
        let channel = connect_tls(server.address(), tls()).await;
        let raw = RawCaller::new(server.address(), Protocol::Http2, Some(tls()));
        Self { channel, raw }
    }

    /// Opens a watch, and checks that it ends with a reason, and then the connection.
    async fn end(mut self, what: &str, expected: &str) {
        let request = WatchRequest { namespace: "shop".to_owned(), ..WatchRequest::default() };
        let mut discovery = DiscoveryClient::new(self.channel.clone());
        let watch = discovery.watch(request).await.expect("a watch");
        let health = "grpc.health.v1.Health/Check";
        let answer = self.raw.grpc(health, &[], Reading::All).await;
        assert_eq!(answer.status.code(), Code::Ok, "{what}");
        let status = end_of(&mut watch.into_inner()).await;
        assert_eq!(outcome(&status), unauthenticated(expected), "{what}");
        // The GOAWAY, after which a pool lets go of the connection.
        soon("the end of a connection", self.raw.closed()).await;
    }
}

const WORKLOADS: &str = "[[allow]]\nwho = 'spiffe://test/ns/{namespace}/sa/*'\n\
    may = ['discover', 'register']\non = '{namespace}/*'\n";

#[tokio::test]
async fn streams_and_connection_end_with_the_certificate() {
    let place = Place::new(&policy(WORKLOADS));
    let server = serve(place.with_tls()).await;
    let connect = async || {
        let without = place.authority.connector(None);
        Tenant::over(connect_tls(server.address(), without).await, "admin")
    };
    let admin = connect().await;
    let lease = admin.register("orders", "a", LONG, 10).await;
    let text = humantime::format_rfc3339_seconds(after(5)).to_string();
    let end = humantime::parse_rfc3339(&text).expect("a time");
    let workload = Workload::connect(&place, &server, Some(end)).await;
    let mut registry = RegistryClient::new(workload.channel.clone());
    let request = waypost_client::proto::KeepAliveRequest { lease_ids: vec![lease] };
    let requests =
        tokio_stream::StreamExt::chain(tokio_stream::once(request), tokio_stream::pending());
    let mut renewals = registry.keep_alive(requests).await.expect("open").into_inner();
    let renewed = soon("an answer", renewals.message()).await.expect("open").expect("an answer");
    assert!(renewed.unknown_lease_ids.is_empty());
    workload.end("certificate that ends", "CREDENTIALS_EXPIRED").await;
    let late = SystemTime::now().duration_since(end).expect("not before its end");
    print_within("end of a certificate to the end of streams and connection", late, END_MAX);
    let status = soon("the end of a stream", renewals.message()).await.expect_err("an error");
    assert_eq!(outcome(&status), unauthenticated("CREDENTIALS_EXPIRED"));
    keeps(&admin, connect().await, "a").await;
}

#[tokio::test]
async fn streams_and_connection_end_when_a_certificate_is_revoked() {
    let place = Place::new(&policy(WORKLOADS));
    let server = serve(place.with_tls()).await;
    let without = place.authority.connector(None);
    let admin = Tenant::over(connect_tls(server.address(), without).await, "admin");
    let workload = Workload::connect(&place, &server, None).await;
    let ended = tokio::spawn(workload.end("certificate that is revoked", "REVOKED"));
    // Its watch is open.
    admin.has_watches(1).await;
    let revoked = format!("revoked = ['{WORKLOAD}']\n{}", policy(WORKLOADS));
    let in_force = change(&place, &admin, &revoked).await;
    ended.await.expect("it ends as it must");
    print_within("certificate revoked to the end of its connection", in_force.elapsed(), END_MAX);
}

#[tokio::test]
async fn streams_and_connection_end_when_an_authority_is_not_trusted_any_more() {
    let place = Place::new(&policy(WORKLOADS));
    let server = serve(place.with_tls()).await;
    let without = place.authority.connector(None);
    let admin = Tenant::over(connect_tls(server.address(), without).await, "admin");
    let workload = Workload::connect(&place, &server, None).await;
    let ended =
        tokio::spawn(workload.end("certificate of no authority", "CERTIFICATE_NOT_TRUSTED"));
    admin.has_watches(1).await;
    let epoch = admin.epoch().await;
    place.write_file("tls/ca.crt", &TestAuthority::new("the next authority").pem());
    let written = Instant::now();
    admin.epoch_after(epoch).await;
    print_within("authority changed to trust in force", written.elapsed(), IN_FORCE_MAX);
    let in_force = Instant::now();
    ended.await.expect("it ends as it must");
    print_within("authority gone to the end of connections", in_force.elapsed(), END_MAX);
}
