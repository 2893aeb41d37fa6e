//! Requests that must not be taken: each is refused with its code and its field, in few bytes, and
//! leaves no trace.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use prost_types::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use waypost::model::Limits;

use crate::support::{
    TestServer, bad_fields, instance, millis,
    proto::{
        DeregisterRequest, Filter, HeartbeatRequest, Instance, ListServicesRequest,
        RegisterRequest, ReleaseProtectionRequest, ResolveRequest, UpdateRequest, WatchRequest,
    },
    raw::{HEADER_BYTES_MAX, RawAnswer, RawClient, framed, full},
    register, register_request, resolve_all, seed, soon,
};

const REGISTER: &str = "/waypost.v1.Registry/Register";
const HEARTBEAT: &str = "/waypost.v1.Registry/Heartbeat";
const KEEP_ALIVE: &str = "/waypost.v1.Registry/KeepAlive";
const UPDATE: &str = "/waypost.v1.Registry/Update";
const DEREGISTER: &str = "/waypost.v1.Registry/Deregister";
const RESOLVE: &str = "/waypost.v1.Discovery/Resolve";
const LIST_SERVICES: &str = "/waypost.v1.Discovery/ListServices";
const WATCH: &str = "/waypost.v1.Discovery/Watch";
const RELEASE_PROTECTION: &str = "/waypost.v1.Admin/ReleaseProtection";

/// What every metadata value of a refused request contains and no refusal may.
const SECRET: &str = "hunter2";
const MESSAGE_MAX: usize = 4 * 1024 * 1024;

/// A kind of bad input.
struct Case {
    what: String,
    path: &'static str,
    body: Bytes,
    refusal: Refusal,
}

/// How it has to be refused.
enum Refusal {
    /// `INVALID_ARGUMENT`, and `BadRequest` names exactly these fields.
    Malformed(Vec<String>),
    /// `RESOURCE_EXHAUSTED`, and `QuotaFailure` and `BadRequest` name this.
    TooMuch(&'static str),
    /// `RESOURCE_EXHAUSTED`, and `QuotaFailure` says why.
    TooLarge,
    /// This code.
    Code(Code),
}

#[derive(Default)]
struct Table(Vec<Case>);

impl Table {
    fn add(&mut self, what: &str, path: &'static str, request: &impl Message, refusal: Refusal) {
        self.raw(what, path, framed(&request.encode_to_vec()), refusal);
    }

    fn raw(&mut self, what: &str, path: &'static str, body: Bytes, refusal: Refusal) {
        let what = format!("{path}: {what}");
        self.0.push(Case { what, path, body, refusal });
    }

    fn register(&mut self, what: &str, request: &RegisterRequest, refusal: Refusal) {
        self.add(what, REGISTER, request, refusal);
    }

    /// Registrations of instances that are fine but for one field.
    fn instances(&mut self, what: &str, field: &str, change: impl FnOnce(&mut Instance)) {
        let path = format!("instance.{field}");
        self.register(&format!("{field} {what}"), &registering(change), malformed(&[&path]));
    }

    fn too_much(&mut self, what: &str, field: &'static str, change: impl FnOnce(&mut Instance)) {
        self.register(&format!("{field} {what}"), &registering(change), Refusal::TooMuch(field));
    }

    fn terms(
        &mut self,
        what: &str,
        field: &str,
        ttl: Option<Duration>,
        disconnect_grace: Option<Duration>,
    ) {
        let request = RegisterRequest { ttl, disconnect_grace, ..registering(|_| {}) };
        self.register(&format!("{field} {what}"), &request, malformed(&[field]));
    }
}

fn malformed(fields: &[&str]) -> Refusal {
    Refusal::Malformed(fields.iter().map(|&field| field.to_owned()).collect())
}

fn registering(change: impl FnOnce(&mut Instance)) -> RegisterRequest {
    let mut refused = instance("refused", "refused");
    refused.metadata.insert("token".to_owned(), SECRET.to_owned());
    change(&mut refused);
    register_request(refused)
}

fn seconds(seconds: i64, nanos: i32) -> Option<Duration> {
    Some(Duration { seconds, nanos })
}

fn entries(count: usize, value: &str) -> BTreeMap<String, String> {
    (0..count).map(|entry| (format!("key-{entry:02}"), value.to_owned())).collect()
}

/// Metadata of exactly so many bytes, each part within its limit.
fn metadata_of(bytes: usize) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::new();
    let mut rest = bytes;
    while rest > 0 {
        let key = format!("key-{:02}", metadata.len());
        let value = (rest - key.len()).min(4000);
        rest -= key.len() + value;
        metadata.insert(key, SECRET.repeat(value / SECRET.len() + 1)[..value].to_owned());
    }
    metadata
}

fn names(table: &mut Table) {
    let long = "x".repeat(129);
    for (what, text) in [
        ("that is too long", long.as_str()),
        ("that climbs", "../../etc/passwd"),
        ("with a NUL", "a\0b"),
        ("with a line break", "a\r\nb"),
        ("with a space", "a b"),
        ("with a slash", "a/b"),
        ("that begins with a dash", "-a"),
        ("that ends with a dot", "a."),
        ("of dots", ".."),
        ("beyond ASCII", "größe"),
        ("of an emoji", "😀"),
        ("like half of a surrogate pair", "\\ud83d"),
        ("of the replacement character", "\u{fffd}"),
        ("with a bidirectional override", "a\u{202e}b"),
        ("that is percent-encoded", "%2e%2e"),
    ] {
        table.instances(what, "service", |instance| instance.service = text.into());
        table.instances(what, "namespace", |instance| instance.namespace = text.into());
        table.instances(what, "zone", |instance| instance.zone = text.into());
    }
    table.instances("that is empty", "service", |instance| instance.service.clear());
    for (what, text) in [
        ("that is too long", "x".repeat(257)),
        ("that is too long in bytes", "ä".repeat(129)),
        ("with a line break", "a\nb".into()),
        ("with a NUL", "\0".into()),
        ("with a delete", "a\u{7f}".into()),
        ("with a C1 control", "a\u{85}".into()),
        ("with an escape", "\u{1b}[31mred".into()),
    ] {
        table.instances(what, "id", |instance| instance.id = text);
    }
    for (what, text) in [("that is too long", long.as_str()), ("with a bell", "1.0\u{7}")] {
        table.instances(what, "version", |instance| instance.version = text.into());
    }
}

fn hosts_and_ports(table: &mut Table) {
    let long = format!("{}.example", "a.".repeat(124));
    let label = format!("{}.example", "a".repeat(64));
    for (what, text) in [
        ("that is empty", ""),
        ("that is too long", long.as_str()),
        ("with too long a label", label.as_str()),
        ("that is a URL", "http://example.com"),
        ("with a port", "example.com:80"),
        ("in brackets", "[::1]"),
        ("with a space", "a b"),
        ("with an empty label", "a..b"),
        ("that begins with a dash", "-a.example"),
        ("out of an address's range", "256.1.1.1"),
        ("with three numbers", "10.0.1"),
        ("that is a network", "10.0.0.0/8"),
        ("that is half IPv6", "2001:db8::g"),
        ("with an IPv6 zone", "fe80::1%eth0"),
        ("with a NUL", "a\0.example"),
        ("beyond ASCII", "bücher.example"),
        ("that climbs", "../socket"),
        ("that is unspecified", "0.0.0.0"),
        ("that is unspecified in IPv6", "::"),
        ("that is unspecified and mapped", "::ffff:0:0"),
        ("that is unspecified in short", "0"),
        ("of a group", "239.1.2.3"),
        ("of a group in IPv6", "ff05::2"),
        ("of a group, mapped", "::ffff:239.1.2.3"),
        ("of everything", "255.255.255.255"),
        ("of everything in hexadecimal", "0xffffffff"),
        ("in hexadecimal", "0xa.0.0.7"),
        ("in one hexadecimal number", "0x0A000007"),
        ("in octal", "012.0.0.7"),
        ("in one octal number", "01200000007"),
        ("in one decimal number", "167772167"),
        ("of two parts", "10.7"),
        ("of three parts", "10.0.7"),
    ] {
        table.instances(what, "host", |instance| instance.host = text.into());
    }
    for port in [0, 65_536, u32::MAX] {
        let what = port.to_string();
        table.instances(&what, "port", |instance| instance.port = port);
        table.instances(&what, "ports[\"metrics\"]", |instance| {
            instance.ports = BTreeMap::from([("metrics".to_owned(), port)]);
        });
    }
    for (what, name, path) in [
        ("without a name", "", "ports[\"\"]"),
        ("with a bad name", "a b", "ports[\"a b\"]"),
        ("with a name that climbs", "../x", "ports[\"../x\"]"),
    ] {
        table.instances(what, path, |instance| {
            instance.ports = BTreeMap::from([(name.to_owned(), 1)]);
        });
    }
    table.too_much("of 65 names", "instance.ports", |instance| {
        instance.ports = (1..=65).map(|port| (format!("port-{port}"), port)).collect();
    });
    for status in [5, 6, -1, i32::MAX, i32::MIN] {
        table.instances(&status.to_string(), "status", |instance| instance.status = status);
    }
}

fn metadata(table: &mut Table) {
    table.too_much("of 65 entries", "instance.metadata", |instance| {
        instance.metadata = entries(65, SECRET);
    });
    table.too_much("of 16 KiB and 1 byte", "instance.metadata", |instance| {
        instance.metadata = metadata_of(16 * 1024 + 1);
    });
    let secret = SECRET.repeat(586)[..4097].to_owned();
    table.too_much("value of 4097 bytes", "instance.metadata[\"token\"]", |instance| {
        instance.metadata = BTreeMap::from([("token".to_owned(), secret)]);
    });
    // 64 bytes of a key are enough to find it.
    let path =
        "instance.metadata[\"kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk\"…]";
    table.too_much("key of 129 bytes", path, |instance| {
        instance.metadata = BTreeMap::from([("k".repeat(129), SECRET.to_owned())]);
    });
    table.instances("without a key", "metadata[\"\"]", |instance| {
        instance.metadata = BTreeMap::from([(String::new(), SECRET.to_owned())]);
    });
}

fn terms(table: &mut Table) {
    for (what, ttl) in [
        ("of nothing", seconds(0, 0)),
        ("of 0.999999999 s", seconds(0, 999_999_999)),
        ("of 301 s", seconds(301, 0)),
        ("of 300 s and 1 ns", seconds(300, 1)),
        ("below zero", seconds(-15, 0)),
        ("with nanos below zero", seconds(15, -1)),
        ("with nanos of a second", seconds(15, 1_000_000_000)),
        ("with the largest nanos", seconds(15, i32::MAX)),
        ("with the smallest nanos", seconds(15, i32::MIN)),
        ("of all that fits", seconds(i64::MAX, i32::MAX)),
        ("of the least that fits", seconds(i64::MIN, i32::MIN)),
    ] {
        table.terms(what, "ttl", ttl, None);
    }
    for (what, ttl, grace) in [
        ("beyond the TTL", seconds(2, 0), seconds(2, 1)),
        ("beyond the default TTL", None, seconds(16, 0)),
        ("below zero", None, seconds(-1, 0)),
        ("just below zero", None, seconds(0, -1)),
        ("with nanos of a second", None, seconds(1, 1_000_000_000)),
        ("of all that fits", None, seconds(i64::MAX, 0)),
        ("of the least that fits", None, seconds(i64::MIN, i32::MIN)),
    ] {
        table.terms(what, "disconnect_grace", ttl, grace);
    }
}

fn several_at_once(table: &mut Table) {
    let required = ["instance.service", "instance.host", "instance.port"];
    table.register(
        "an empty instance",
        &register_request(Instance::default()),
        malformed(&required),
    );
    table.register("nothing", &RegisterRequest::default(), malformed(&["instance"]));
    let request = RegisterRequest { ttl: seconds(0, 0), ..RegisterRequest::default() };
    table.register("no instance and no TTL", &request, malformed(&["instance", "ttl"]));
    let request = RegisterRequest {
        ttl: seconds(0, 0),
        disconnect_grace: seconds(-1, 0),
        ..registering(|instance| {
            instance.zone = "?".into();
            instance.metadata = entries(65, SECRET);
        })
    };
    let fields = ["instance.zone", "instance.metadata", "ttl", "disconnect_grace"];
    table.register("malformed and too much", &request, malformed(&fields));
    table.add("nothing", UPDATE, &UpdateRequest::default(), {
        malformed(&["service", "id", "update_mask"])
    });
}

fn update(lease_id: u64, paths: &[&str], instance: Option<Instance>) -> UpdateRequest {
    let paths = paths.iter().map(|&path| path.to_owned()).collect();
    let update_mask = Some(prost_types::FieldMask { paths });
    UpdateRequest { lease_id, instance, update_mask, ..UpdateRequest::default() }
}

fn updates(table: &mut Table, lease: u64) {
    let with = |change: fn(&mut Instance)| registering(change).instance;
    for (what, request, fields) in [
        ("an empty mask", update(lease, &[], with(|_| {})), vec!["update_mask"]),
        ("a path of the identity", update(lease, &["host"], None), vec!["update_mask.paths[0]"]),
        ("an empty path", update(lease, &[""], None), vec!["update_mask.paths[0]"]),
        ("a star", update(lease, &["*"], None), vec!["update_mask.paths[0]"]),
        ("a part", update(lease, &["metadata.token"], None), vec!["update_mask.paths[0]"]),
        ("another case", update(lease, &["zone", "Weight"], None), vec!["update_mask.paths[1]"]),
        ("no status", update(lease, &["status"], None), vec!["instance.status"]),
        ("a suspect", update(lease, &["status"], with(|one| one.status = 5)), {
            vec!["instance.status"]
        }),
        ("a status", update(lease, &["status"], with(|one| one.status = 77)), {
            vec!["instance.status"]
        }),
        ("a zone", update(lease, &["zone"], with(|one| one.zone = "?".into())), {
            vec!["instance.zone"]
        }),
        ("a version", update(lease, &["version"], with(|one| one.version = "\n".into())), {
            vec!["instance.version"]
        }),
        ("no name", update(0, &["weight"], None), vec!["service", "id"]),
    ] {
        table.add(what, UPDATE, &request, malformed(&fields));
    }
    let request = update(lease, &["metadata"], with(|one| one.metadata = entries(65, SECRET)));
    table.add("65 entries", UPDATE, &request, Refusal::TooMuch("instance.metadata"));
    let request = UpdateRequest {
        namespace: "../".into(),
        service: "a b".into(),
        id: "\0".into(),
        ..update(0, &["weight"], None)
    };
    table.add("bad names", UPDATE, &request, malformed(&["namespace", "service", "id"]));
}

fn removals(table: &mut Table) {
    for (what, namespace, service, id, fields) in [
        ("nothing", "", "", "", vec!["service", "id"]),
        ("no id", "", "refused", "", vec!["id"]),
        ("a service that climbs", "", "../refused", "a", vec!["service"]),
        ("a namespace that climbs", "..", "refused", "a", vec!["namespace"]),
        ("an id with a NUL", "", "refused", "\0", vec!["id"]),
    ] {
        let request = DeregisterRequest {
            lease_id: 0,
            namespace: namespace.into(),
            service: service.into(),
            id: id.into(),
        };
        table.add(what, DEREGISTER, &request, malformed(&fields));
    }
}

fn reads(table: &mut Table) {
    let resolve = |service: &str, filter| ResolveRequest {
        service: service.into(),
        filter: Some(filter),
        ..ResolveRequest::default()
    };
    let none = Filter::default;
    let texts = |count: usize| vec!["x".to_owned(); count];
    table.add("no service", RESOLVE, &resolve("", none()), malformed(&["service"]));
    table.add("a wild service", RESOLVE, &resolve("😀/\0", none()), malformed(&["service"]));
    for (field, filter) in [
        ("filter.zones", Filter { zones: texts(65), ..none() }),
        ("filter.versions", Filter { versions: texts(65), ..none() }),
        ("filter.metadata", Filter { metadata: entries(65, SECRET), ..none() }),
    ] {
        let too_much = || Refusal::TooMuch(field);
        table.add(field, RESOLVE, &resolve("a", filter.clone()), too_much());
        let request = WatchRequest { filter: Some(filter), ..WatchRequest::default() };
        table.add(field, WATCH, &request, too_much());
    }
    let filter = Filter { zones: texts(65), ..none() };
    table.add("bad and too much", RESOLVE, &resolve("?", filter), {
        malformed(&["service", "filter.zones"])
    });
    for (what, request, field) in [
        ("a token", ListServicesRequest { page_token: "../".into(), ..Default::default() }, {
            "page_token"
        }),
        (
            "a long token",
            ListServicesRequest { page_token: "x".repeat(129), ..Default::default() },
            { "page_token" },
        ),
        ("a namespace", ListServicesRequest { namespace: "a b".into(), ..Default::default() }, {
            "namespace"
        }),
    ] {
        table.add(what, LIST_SERVICES, &request, malformed(&[field]));
    }
    let release = ReleaseProtectionRequest { namespace: "a b".into() };
    table.add("a namespace", RELEASE_PROTECTION, &release, malformed(&["namespace"]));
    let watch = |services: &[&str]| crate::support::watch_of(services);
    table.add("an empty service", WATCH, &watch(&["a", ""]), malformed(&["services[1]"]));
    table.add("bad services", WATCH, &watch(&["?", "a", "!"]), {
        malformed(&["services[0]", "services[2]"])
    });
    let many: Vec<_> = (0..1025).map(|number| format!("service-{number}")).collect();
    let many = WatchRequest { services: many, ..WatchRequest::default() };
    table.add("1025 services", WATCH, &many, Refusal::TooMuch("services"));
    let request = WatchRequest { namespace: "-".into(), ..WatchRequest::default() };
    table.add("a namespace", WATCH, &request, malformed(&["namespace"]));
}

fn heartbeats(table: &mut Table) {
    let leases = HeartbeatRequest { lease_ids: vec![7; 65_537] };
    table.add("65,537 leases", HEARTBEAT, &leases, Refusal::TooMuch("lease_ids"));
    table.add("65,537 leases", KEEP_ALIVE, &leases, Refusal::TooMuch("lease_ids"));
    // Once more in the other encoding of a repeated field.
    let unpacked = [0x09, 7, 0, 0, 0, 0, 0, 0, 0].repeat(65_537);
    table.raw("65,537 leases", HEARTBEAT, framed(&unpacked), Refusal::TooMuch("lease_ids"));
}

fn bytes(table: &mut Table) {
    let register = registering(|_| {}).encode_to_vec();
    for (what, message, field) in [
        ("garbage", vec![0xff; 64], "message"),
        ("a field of number 0", vec![0x02, 0x00], "message"),
        ("the end of a group", vec![0x7c], "message"),
        ("an endless number", vec![0x80; 11], "message"),
        ("a length beyond the end", vec![0x0a, 0x7f, 0x00], "instance"),
        ("half a message", register[..register.len() / 2].to_vec(), "instance"),
        ("a number for the instance", vec![0x08, 0x01], "instance"),
        ("a host that is not UTF-8", vec![0x0a, 0x03, 0x22, 0x01, 0xff], "instance.host"),
        ("a surrogate", vec![0x0a, 0x05, 0x12, 0x03, 0xed, 0xa0, 0xbd], "instance.service"),
        ("a text for the port", vec![0x0a, 0x03, 0x2a, 0x01, b'8'], "instance.port"),
        ("a number for the metadata", vec![0x0a, 0x02, 0x58, 0x01], "instance.metadata"),
        ("a text for the TTL's seconds", vec![0x12, 0x03, 0x0a, 0x01, b'1'], "ttl.seconds"),
    ] {
        table.raw(what, REGISTER, framed(&message), malformed(&[field]));
    }
    for (what, path, message, field) in [
        ("leases of 7 bytes", HEARTBEAT, vec![0x0a, 0x07, 1, 2, 3, 4, 5, 6, 7], "lease_ids"),
        ("a number for the leases", HEARTBEAT, vec![0x08, 0x01], "lease_ids"),
        ("garbage", KEEP_ALIVE, vec![0xff; 16], "message"),
        ("garbage", WATCH, vec![0xff; 16], "message"),
        ("garbage", RESOLVE, vec![0xff; 16], "message"),
        ("garbage", UPDATE, vec![0xff; 16], "message"),
        ("garbage", DEREGISTER, vec![0xff; 16], "message"),
    ] {
        table.raw(what, path, framed(&message), malformed(&[field]));
    }
    // Groups within groups within an unknown field.
    table.raw("deep nesting", REGISTER, framed(&[0x7b; 10_000]), malformed(&["message"]));
}

fn sizes_and_frames(table: &mut Table) {
    let request = registering(|_| {}).encode_to_vec();
    table.raw("4 MiB and 1 byte", REGISTER, framed(&padded(&request, MESSAGE_MAX + 1)), {
        Refusal::TooLarge
    });
    table.raw("4 MiB and 1 byte", KEEP_ALIVE, framed(&padded(&[], MESSAGE_MAX + 1)), {
        Refusal::TooLarge
    });
    let announced = [&[0, 0xff, 0xff, 0xff, 0xff][..], &request].concat();
    table.raw("4 GiB announced", REGISTER, announced.into(), Refusal::TooLarge);
    let flagged = |flag: u8| Bytes::from([&[flag], &framed(&request)[1..]].concat());
    table.raw("compressed as nobody said", REGISTER, flagged(1), Refusal::Code(Code::Internal));
    table.raw("a flag that does not exist", REGISTER, flagged(2), Refusal::Code(Code::Internal));
    for path in [
        "/waypost.v1.Registry/Nothing",
        "/waypost.v1.Registry/",
        "/waypost.v1.Nothing/Register",
        "/waypost.v2.Registry/Register",
        "/",
        "/../../etc/passwd",
    ] {
        let refusal = Refusal::Code(Code::Unimplemented);
        table.raw("no such method", path, framed(&request), refusal);
    }
}

/// The message with an unknown field that fills it up to so many bytes.
fn padded(message: &[u8], bytes: usize) -> Vec<u8> {
    // Field 1000, its length in four bytes.
    let mut length = bytes - message.len() - 6;
    let mut padded = message.to_vec();
    padded.extend([0xc2, 0x3e]);
    for byte in 0..4 {
        let more = if byte < 3 { 0x80 } else { 0 };
        padded.push(u8::try_from(length & 0x7f).expect("seven bits") | more);
        length >>= 7;
    }
    padded.resize(bytes, b'x');
    padded
}

fn table(lease: u64) -> Vec<Case> {
    let mut table = Table::default();
    names(&mut table);
    hosts_and_ports(&mut table);
    metadata(&mut table);
    terms(&mut table);
    several_at_once(&mut table);
    updates(&mut table, lease);
    removals(&mut table);
    reads(&mut table);
    heartbeats(&mut table);
    bytes(&mut table);
    sizes_and_frames(&mut table);
    table.0
}

/// What is wrong with the way in which the input was refused.
fn mistakes(answer: &RawAnswer, refusal: &Refusal) -> Vec<String> {
    let status = answer.status();
    let fields = bad_fields(&status);
    let subjects = quota_subjects(&status);
    let mut mistakes = Vec::new();
    let mut check = |right: bool, what: String| {
        if !right {
            mistakes.push(what);
        }
    };
    let code = match refusal {
        Refusal::Malformed(expected) => {
            check(fields == *expected, format!("names {fields:?}, not {expected:?}"));
            Code::InvalidArgument
        }
        Refusal::TooMuch(expected) => {
            check(fields == [*expected], format!("names {fields:?}, not {expected:?}"));
            check(subjects == [*expected], format!("quota of {subjects:?}, not {expected:?}"));
            Code::ResourceExhausted
        }
        Refusal::TooLarge => {
            check(!subjects.is_empty(), "has no quota failure".to_owned());
            Code::ResourceExhausted
        }
        Refusal::Code(code) => *code,
    };
    check(status.code() == code, format!("is {status:?}, not {code:?}"));
    check(answer.http == 200, format!("is HTTP {}", answer.http));
    // The framework's own refusal of an unknown method needs no words.
    let says_why = code == Code::Unimplemented || !status.message().is_empty();
    check(says_why, "says nothing".to_owned());
    check(!tells_secret(answer), "repeats a metadata value".to_owned());
    let bytes = answer.status_bytes();
    check(bytes < HEADER_BYTES_MAX as usize, format!("has {bytes} bytes"));
    mistakes
}

fn quota_subjects(status: &Status) -> Vec<String> {
    let violations = status.get_details_quota_failure().map(|failure| failure.violations);
    violations.unwrap_or_default().into_iter().map(|violation| violation.subject).collect()
}

fn tells_secret(answer: &RawAnswer) -> bool {
    let status = answer.status();
    let contains = |bytes: &[u8]| bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
    contains(status.message().as_bytes())
        || contains(status.details())
        || format!("{:?}{:?}", answer.headers, answer.trailers).contains(SECRET)
}

/// A server with something to lose, and the lease of one of its instances.
async fn populated() -> (TestServer, u64, Vec<Instance>) {
    let server = TestServer::start().await;
    let mut registry = server.registry();
    let mut lease = 0;
    for id in 0..5 {
        let kept = Instance { metadata: entries(2, "kept"), ..instance("kept", &id.to_string()) };
        lease = register(&mut registry, kept).await.lease_id;
    }
    let kept = resolve_all(&mut server.discovery(), "kept").await.instances;
    assert_eq!(kept.len(), 5);
    (server, lease, kept)
}

/// Everything is as it was, and works.
async fn unharmed(server: &TestServer, kept: &[Instance]) {
    let there = resolve_all(&mut server.discovery(), "kept").await.instances;
    assert_eq!(there, kept);
    let added = register(&mut server.registry(), instance("works", "")).await;
    let found = resolve_all(&mut server.discovery(), "works").await;
    assert!(found.instances.contains(&added.instance.expect("an instance")));
}

#[tokio::test]
async fn bad_input_is_refused_by_its_field_and_leaves_no_trace() {
    let (server, lease, kept) = populated().await;
    let revision = server.status().await.revision;
    let cases = table(lease);
    eprintln!("{} kinds of bad input", cases.len());
    assert!(cases.len() >= 80);
    let mut wrong = Vec::new();
    let mut client = RawClient::connect(server.address).await;
    for Case { what, path, body, refusal } in cases {
        match client.send(path, "application/grpc", full(body)).await {
            Ok(answer) => {
                let mistakes = mistakes(&answer, &refusal);
                wrong.extend(mistakes.into_iter().map(|mistake| format!("{what}: {mistake}")));
            }
            Err(error) => {
                wrong.push(format!("{what}: is not answered: {error:?}"));
                client = RawClient::connect(server.address).await;
            }
        }
        let status = server.status().await;
        if status.revision != revision + wrong_changes(&wrong) {
            wrong.push(format!("{what}: leaves a trace"));
        }
    }
    assert!(wrong.is_empty(), "{} mistakes:\n{}", wrong.len(), wrong.join("\n"));
    unharmed(&server, &kept).await;
    server.stop().await;
}

/// Changes that were wrongly made so far; they are complained of once.
fn wrong_changes(wrong: &[String]) -> u64 {
    wrong.iter().filter(|mistake| mistake.ends_with("leaves a trace")).count() as u64
}

#[tokio::test]
async fn what_is_just_within_its_limit_is_taken() {
    let server = TestServer::start().await;
    let name = format!("a{}z", ".-_".repeat(42));
    assert_eq!(name.len(), 128);
    let host = format!("{}example", "a.".repeat(123));
    assert_eq!(host.len(), 253);
    let key = "k".repeat(128);
    let registrations: Vec<(&str, RegisterRequest)> = vec![
        ("service", registering(|one| one.service = name.clone())),
        ("namespace", registering(|one| one.namespace = name.clone())),
        ("zone", registering(|one| one.zone = name.clone())),
        ("version", registering(|one| one.version = "ä".repeat(64))),
        ("id", registering(|one| one.id = "ä".repeat(128))),
        ("id that climbs", registering(|one| one.id = "../../etc/passwd".into())),
        ("id that looks escaped", registering(|one| one.id = "\\ud83d\\u0000%00".into())),
        ("id of one space", registering(|one| one.id = " ".into())),
        ("host", registering(|one| one.host = host.clone())),
        ("host of IPv6", registering(|one| one.host = "::ffff:10.0.0.1".into())),
        ("host of digits", registering(|one| one.host = "502938475610".into())),
        ("host of few digits", registering(|one| one.host = "4711".into())),
        ("host with digits first", registering(|one| one.host = "12.example".into())),
        ("port 1", registering(|one| one.port = 1)),
        ("port 65535", registering(|one| one.port = 65_535)),
        (
            "ports",
            registering(|one| {
                one.ports = (1..=64).map(|port| (format!("port-{port}"), port)).collect();
            }),
        ),
        ("weight", registering(|one| one.weight = Some(u32::MAX))),
        ("entries", registering(|one| one.metadata = entries(64, SECRET))),
        ("all metadata", registering(|one| one.metadata = metadata_of(16 * 1024))),
        ("key", registering(|one| one.metadata = BTreeMap::from([(key.clone(), "".into())]))),
        (
            "value",
            registering(|one| {
                one.metadata = BTreeMap::from([("k".to_owned(), "\0".repeat(4096))]);
            }),
        ),
    ];
    let mut client = RawClient::connect(server.address).await;
    for (what, request) in registrations {
        let answer = client.grpc(REGISTER, framed(&request.encode_to_vec())).await;
        assert_eq!(answer.status().code(), Code::Ok, "{what}: {:?}", answer.status());
        let said = request.instance.expect("an instance");
        let namespace = said.namespace.clone();
        let read =
            crate::support::resolve_all_in(&mut server.discovery(), &namespace, &said.service)
                .await;
        let held = read.instances.into_iter().find(|held| held.id == said.id).expect("it is there");
        let expected = Instance {
            namespace: held.namespace.clone(),
            status: held.status,
            weight: held.weight,
            created_revision: held.created_revision,
            modified_revision: held.modified_revision,
            registered_at: held.registered_at,
            ..said
        };
        assert_eq!(held, expected, "{what} is kept as it was said");
    }

    let leases = HeartbeatRequest { lease_ids: (1..=65_536).collect() };
    let answer = server.registry().heartbeat(leases).await.expect("65,536 leases");
    assert_eq!(answer.into_inner().unknown_lease_ids.len(), 65_536);
    for (path, message) in [
        (REGISTER, registering(|_| {}).encode_to_vec()),
        (HEARTBEAT, Vec::new()),
        (KEEP_ALIVE, Vec::new()),
    ] {
        let answer = client.grpc(path, framed(&padded(&message, MESSAGE_MAX))).await;
        assert_eq!(answer.status().code(), Code::Ok, "{path}: {:?}", answer.status());
    }
    let services = (0..1024).map(|number| format!("service-{number}")).collect();
    let request = WatchRequest { services, ..WatchRequest::default() };
    let opened = soon("a watch", server.discovery().watch(request)).await.expect("1024 services");
    let first = soon("a snapshot", opened.into_inner().message()).await.expect("a message");
    assert!(first.is_some());
}

#[tokio::test]
async fn a_refusal_stays_small_however_much_is_wrong() {
    let (server, lease, kept) = populated().await;
    let mut client = RawClient::connect(server.address).await;
    let wild = |seed: usize| format!("{seed}{}", "\u{7}ä\"\\".repeat(2_000));
    let everything = RegisterRequest {
        ttl: seconds(-1, 0),
        disconnect_grace: seconds(-1, 0),
        ..registering(|one| {
            one.namespace = wild(1);
            one.service = wild(2);
            one.id = wild(3);
            one.host = wild(4);
            one.port = 70_000;
            one.status = -7;
            one.zone = wild(5);
            one.version = wild(6);
            one.ports = (0..60).map(|port| (wild(port), 70_000)).collect();
            one.metadata = (0..60).map(|entry| (wild(entry), SECRET.repeat(1_000))).collect();
        })
    };
    let paths: Vec<String> = (0..5_000).map(wild).collect();
    let masked = UpdateRequest {
        lease_id: lease,
        update_mask: Some(prost_types::FieldMask { paths: paths[..200].to_vec() }),
        ..UpdateRequest::default()
    };
    let watched = WatchRequest { services: paths[..200].to_vec(), ..WatchRequest::default() };
    for (path, message) in [
        (REGISTER, everything.encode_to_vec()),
        (UPDATE, masked.encode_to_vec()),
        (WATCH, watched.encode_to_vec()),
    ] {
        assert!(message.len() < MESSAGE_MAX);
        let answer = client.grpc(path, framed(&message)).await;
        let status = answer.status();
        assert_eq!(status.code(), Code::InvalidArgument, "{path}: {status:?}");
        assert!(answer.status_bytes() < HEADER_BYTES_MAX as usize, "{}", answer.status_bytes());
        assert!(bad_fields(&status).len() > 3, "{path} names several");
        assert!(!tells_secret(&answer), "{path} repeats a metadata value");
        assert!(!status.message().contains(char::is_control), "{:?}", status.message());
    }
    unharmed(&server, &kept).await;
}

#[tokio::test]
async fn a_full_registry_refuses_the_next_and_keeps_serving_those_it_has() {
    let limits = Limits { instances_max: 10, ..Limits::default() };
    let server = TestServer::start_with(limits).await;
    let mut registry = server.registry();
    for id in 0..10 {
        register(&mut registry, instance("orders", &id.to_string())).await;
    }
    for id in ["10", "11", ""] {
        let request = register_request(instance("orders", id));
        let refused = registry.register(request).await.expect_err("full");
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(quota_subjects(&refused), ["instances"]);
    }
    assert_eq!(server.status().await.revision, 10);
    // Who is in may take over, change and leave; then there is room for one.
    let taken = register(&mut registry, Instance { port: 1, ..instance("orders", "7") }).await;
    let request = DeregisterRequest { lease_id: taken.lease_id, ..DeregisterRequest::default() };
    registry.deregister(request).await.expect("gone");
    register(&mut registry, instance("orders", "10")).await;
    let request = register_request(instance("orders", "7"));
    let refused = registry.register(request).await.expect_err("full");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(server.status().await.instances, 10);
}

#[tokio::test]
async fn configured_limits_are_the_ones_that_count() {
    let limits = Limits {
        name_bytes_max: 5,
        id_bytes_max: 4,
        host_bytes_max: 7,
        ports_max: 1,
        metadata_entries_max: 1,
        metadata_value_bytes_max: 3,
        heartbeat_leases_max: 2,
        watch_services_max: 1,
        filter_entries_max: 1,
        message_bytes_max: 256,
        ..Limits::default()
    };
    let server = TestServer::start_with(limits).await;
    let small = Instance {
        host: "1.1.1.1".into(),
        ports: BTreeMap::from([("abcde".to_owned(), 1)]),
        metadata: BTreeMap::from([("key".to_owned(), "abc".to_owned())]),
        ..instance("abcde", "abcd")
    };
    let mut registry = server.registry();
    registry.register(register_request(small.clone())).await.expect("just within");
    let large = Instance {
        service: "abcdef".into(),
        id: "abcde".into(),
        host: "1.1.1.10".into(),
        ..small.clone()
    };
    let refused = registry.register(register_request(large)).await.expect_err("too long");
    assert_eq!(refused.code(), Code::InvalidArgument, "the form of a text");
    assert_eq!(bad_fields(&refused), ["instance.service", "instance.id", "instance.host"]);
    let mut more = small;
    more.ports.insert("b".into(), 2);
    more.metadata.insert("key".into(), "abcd".into());
    let refused = registry.register(register_request(more)).await.expect_err("too much");
    assert_eq!(refused.code(), Code::ResourceExhausted, "how much");
    assert_eq!(quota_subjects(&refused), ["instance.ports", "instance.metadata[\"key\"]"]);
    let leases = |count| HeartbeatRequest { lease_ids: vec![1; count] };
    registry.heartbeat(leases(2)).await.expect("just within");
    let refused = registry.heartbeat(leases(3)).await.expect_err("too many");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let refused = registry.heartbeat(leases(33)).await.expect_err("too large a message");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(quota_subjects(&refused), ["message"]);
    let watch = crate::support::watch_of(&["a", "b"]);
    let refused = server.discovery().watch(watch).await.expect_err("too many");
    assert_eq!(refused.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn a_refused_stream_ends_after_the_answers_that_came_before() {
    let (server, lease, kept) = populated().await;
    let mut client = RawClient::connect(server.address).await;
    let good = framed(&HeartbeatRequest { lease_ids: vec![lease, 3] }.encode_to_vec());
    let bad = framed(&HeartbeatRequest { lease_ids: vec![1; 65_537] }.encode_to_vec());
    let body = [&good[..], &bad, &good].concat();
    let answer = client.grpc(KEEP_ALIVE, body.into()).await;
    assert_eq!(answer.status().code(), Code::ResourceExhausted);
    let expected = framed(&HeartbeatRequest { lease_ids: vec![3] }.encode_to_vec());
    assert_eq!(answer.body, expected, "one answer, for the request before the bad one");
    unharmed(&server, &kept).await;
}

#[tokio::test]
async fn mutated_messages_are_taken_or_refused_and_never_answered_otherwise() {
    let (server, lease, kept) = populated().await;
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut client = RawClient::connect(server.address).await;
    let messages = [
        (
            REGISTER,
            RegisterRequest { ttl: Some(millis(300_000)), ..registering(|_| {}) }.encode_to_vec(),
        ),
        (UPDATE, update(lease, &["zone", "weight"], registering(|_| {}).instance).encode_to_vec()),
        (HEARTBEAT, HeartbeatRequest { lease_ids: vec![lease; 5] }.encode_to_vec()),
        (RESOLVE, ResolveRequest { service: "kept".into(), ..Default::default() }.encode_to_vec()),
        (LIST_SERVICES, ListServicesRequest { page_size: 3, ..Default::default() }.encode_to_vec()),
    ];
    let mut refused = 0;
    for round in 0..1_000 {
        let (path, message) = &messages[round % messages.len()];
        let mut message = message.clone();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..message.len());
            match random.u8(..4) {
                0 => message[at] = random.u8(..),
                1 => message[at] ^= 1 << random.u8(..8),
                2 => message.insert(at, random.u8(..)),
                _ if message.len() > 1 => {
                    message.remove(at);
                }
                _ => {}
            }
        }
        let answer = client.grpc(path, framed(&message)).await;
        let code = answer.status().code();
        let known = [
            Code::Ok,
            Code::InvalidArgument,
            Code::ResourceExhausted,
            Code::NotFound,
            Code::FailedPrecondition,
        ];
        assert!(
            known.contains(&code),
            "{path} {message:02x?} (seed {seed}): {:?}",
            answer.status()
        );
        refused += u32::from(code != Code::Ok);
    }
    assert!(refused > 100, "mutations do harm: {refused} refused");
    // An update may have hit its mark; the rest is untouched.
    let there = resolve_all(&mut server.discovery(), "kept").await.instances;
    assert_eq!(there[..4], kept[..4]);
    assert_eq!(there.len(), kept.len());
}
