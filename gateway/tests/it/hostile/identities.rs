//! Callers with false identities: invalid tokens and keys, headers that only the gateway may send,
//! and spellings of a protected path.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use waypost_auth::testing::SigningKey;
use waypost_gateway::Running;

use crate::hostile::judge;
use crate::hostile::support::{
    caller::hear,
    case::{
        Case,
        Expected::{self, Status},
    },
    frames::{self, Block, END_HEADERS, END_STREAM, headers},
    gateway::start_with,
    upstream::{Seen, Upstream},
};

const SECRET: &[u8] = b"a secret of more than thirty-two bytes";
const API_KEY: &str = "the-key-of-ci";

const CONFIG: &str = "
[auth.jwt]
keys = [{ kid = 'a', alg = 'HS256', secret_file = 'a.secret' }]
issuer = 'https://id.example.com'
audience = 'api'

[auth.api_keys]
file = 'api-keys.toml'

[[routes]]
name = 'open'
path = '/orders'
service = 'orders'
strip = false

[[routes]]
name = 'optional'
path = '/orders/greeting'
service = 'orders'
strip = false
auth = 'optional'

[[routes]]
name = 'known'
path = '/orders/admin'
service = 'orders'
auth = 'required'

[[routes]]
name = 'scoped'
path = '/orders/root'
service = 'orders'
scopes = ['orders:write']
";

struct Guarded {
    upstream: Upstream,
    gateway: Running,
    _files: TempDir,
}

impl Guarded {
    async fn start() -> Self {
        let files = tempfile::tempdir().unwrap();
        let digest: String =
            Sha256::digest(API_KEY).iter().map(|byte| format!("{byte:02x}")).collect();
        let old: String = Sha256::digest("old").iter().map(|byte| format!("{byte:02x}")).collect();
        let keys = format!(
            "[[keys]]\nid = 'ci'\nsha256 = '{digest}'\nscopes = ['orders:read']\n\
             [[keys]]\nid = 'old'\nsha256 = '{old}'\nexpires = 2020-01-01T00:00:00Z\n"
        );
        for (name, content) in [
            ("a.secret", SECRET),
            ("api-keys.toml", keys.as_bytes()),
            ("gateway.toml", CONFIG.as_bytes()),
        ] {
            fs::write(files.path().join(name), content).unwrap();
        }
        let upstream = Upstream::start().await;
        let config = files.path().join("gateway.toml");
        let gateway = start_with(&[upstream.address()], Some(config)).await;
        Self { upstream, gateway, _files: files }
    }

    /// The request that the instance sees, with these lines.
    async fn passes(&self, target: &str, lines: &str) -> Seen {
        let heard = hear(self.gateway.address(), get(target, lines)).await;
        assert!(heard.starts_with("HTTP/1.1 200"), "{target} {lines}: {heard}");
        self.upstream.take().remove(0)
    }
}

fn get(target: &str, lines: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines}\r\n")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn with(mut object: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else { panic!("{changes} is no object") };
    object.as_object_mut().unwrap().extend(changes);
    object
}

/// Claims that hold, but for these changes.
fn claims(changes: Value) -> Value {
    let claims = json!({
        "sub": "ann", "iss": "https://id.example.com", "aud": "api", "exp": now() + 3600,
        "scope": "orders:read",
    });
    with(claims, changes)
}

fn signed(header: &Value, claims: &Value, secret: &[u8]) -> String {
    SigningKey::secret(secret).token_of_texts("HS256", &header.to_string(), &claims.to_string())
}

/// A token that holds, but for these changes.
fn token(header: Value, changes: Value) -> String {
    let header = with(json!({ "alg": "HS256", "typ": "JWT", "kid": "a" }), header);
    signed(&header, &claims(changes), SECRET)
}

fn good() -> String {
    token(json!({}), json!({}))
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// Tokens that don't hold, by what is wrong with them.
fn bad_tokens() -> Vec<(&'static str, String)> {
    let good = good();
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    let root = URL_SAFE_NO_PAD.encode(claims(json!({ "sub": "root" })).to_string());
    let none = |name: &str| {
        let header = json!({ "alg": name, "typ": "JWT" }).to_string();
        format!("{}.{payload}.", URL_SAFE_NO_PAD.encode(header))
    };
    let of = |changes| token(json!({}), changes);
    let by = |header| token(header, json!({}));
    let head = json!({ "alg": "HS256", "kid": "a" });
    let embedded =
        json!({ "alg": "HS256", "jwk": { "kty": "oct", "k": URL_SAFE_NO_PAD.encode([9; 32]) } });
    vec![
        ("empty", String::new()),
        ("no token", "x".to_owned()),
        ("no signature", format!("{message}.")),
        ("one dot", message.to_owned()),
        ("half a signature", format!("{message}.{}", &signature[..20])),
        ("four parts", format!("{good}.{signature}")),
        ("other claims", format!("{header}.{root}.{signature}")),
        ("two tokens", format!("{good},{good}")),
        ("more behind it", format!("{good} x")),
        ("huge", format!("{good}{}", "A".repeat(9 * 1024))),
        ("alg none", none("none")),
        ("alg nOnE", none("nOnE")),
        ("alg none with a signature", by(json!({ "alg": "none" }))),
        ("another alg", by(json!({ "alg": "HS512" }))),
        ("alg of another type of key", by(json!({ "alg": "RS256" }))),
        ("an unknown kid", by(json!({ "kid": "b" }))),
        ("a kid that is a path", by(json!({ "kid": "../../dev/null" }))),
        ("crit", by(json!({ "crit": ["exp"] }))),
        ("another secret", signed(&head, &claims(json!({})), &[9; 32])),
        ("no secret", signed(&head, &claims(json!({})), b"")),
        ("a key that it brings", signed(&embedded, &claims(json!({})), &[9; 32])),
        ("expired", of(json!({ "exp": now() - 3600 }))),
        ("no expiry", of(json!({ "exp": null }))),
        ("not yet valid", of(json!({ "nbf": now() + 3600 }))),
        ("another issuer", of(json!({ "iss": "https://evil.example" }))),
        ("no issuer", of(json!({ "iss": null }))),
        ("another audience", of(json!({ "aud": "web" }))),
        ("no subject", of(json!({ "sub": null }))),
        ("claims that are a list", signed(&head, &json!(["ann"]), SECRET)),
    ]
}

#[tokio::test]
async fn no_bad_credential_reaches_an_instance() {
    let guarded = Guarded::start().await;
    let mut cases = Vec::new();
    // A credential must be valid even where none is required.
    for target in ["/orders/admin/7", "/orders/root", "/orders/greeting"] {
        let bad = |name, lines: &str, expected| Case::new(name, get(target, lines), expected);
        for (name, token) in bad_tokens() {
            cases.push(bad(name, &bearer(&token), Status(401)));
        }
        let (good, key) = (bearer(&good()), format!("X-Api-Key: {API_KEY}\r\n"));
        cases.extend([
            bad("another scheme", "Authorization: Basic YTpi\r\n", Status(401)),
            bad("no scheme", &good.replace("Bearer ", ""), Status(401)),
            bad("two tokens on two lines", &good.repeat(2), Status(400)),
            bad("a token and a key", &format!("{good}{key}"), Status(401)),
            bad("the same key twice", &key.repeat(2), Status(401)),
            bad("an unknown key", "X-Api-Key: x\r\n", Status(401)),
            bad("an empty key", "X-Api-Key:\r\n", Status(401)),
            bad("an expired key", "X-Api-Key: old\r\n", Status(401)),
            bad("a key in capital letters", &key.to_uppercase(), Status(401)),
            bad("a huge key", &format!("X-Api-Key: {}\r\n", "x".repeat(9 * 1024)), Status(401)),
        ]);
    }
    for target in ["/orders/admin/7", "/orders/root"] {
        let bad = |name, lines: &str| Case::new(name, get(target, lines), Status(401));
        cases.extend([
            bad("nothing", ""),
            bad("a token in a cookie", &format!("Cookie: token={}\r\n", good())),
            bad("a token by another name", &format!("X-Authorization: Bearer {}\r\n", good())),
            bad("a token for a proxy", &format!("Proxy-Authorization: Bearer {}\r\n", good())),
            bad("a key by another name", &format!("Api-Key: {API_KEY}\r\n")),
        ]);
    }
    let key = format!("X-Api-Key: {API_KEY}\r\n");
    cases.push(Case::new("no scope", get("/orders/root", &bearer(&good())), Status(403)));
    cases.push(Case::new("a key without the scope", get("/orders/root", &key), Status(403)));
    judge(&guarded.gateway, &guarded.upstream, &cases).await;
}

#[tokio::test]
async fn no_spelling_of_a_path_gets_around_its_route() {
    let guarded = Guarded::start().await;
    let mut cases = Vec::new();
    for (target, expected) in [
        ("/orders/admin", Status(401)),
        ("/orders/admin/", Status(401)),
        ("/orders/admin?x", Status(401)),
        ("/orders/%61dmin/7", Status(401)),
        ("/orders/%61%64%6D%69%6e", Status(401)),
        ("/%6frders/admin", Status(401)),
        ("/orders/admin;x=y/7", Status(401)),
        ("/orders/%61dmin%3bx", Status(401)),
        ("/orders;x/admin", Status(401)),
        ("/orders//admin", Status(400)),
        ("/orders/./admin", Status(400)),
        ("/orders/x/../admin", Status(400)),
        ("/orders%2fadmin", Status(400)),
        ("/orders\\admin", Status(400)),
        ("//orders/admin", Status(400)),
        ("/orders/%c1%a1dmin", Status(400)),
    ] {
        cases.push(Case::new("HTTP/1", get(target, ""), expected));
        cases.push(Case::new("absolute", get(&format!("http://a{target}"), ""), expected));
        let stream = headers(&Block::get(target), END_HEADERS | END_STREAM);
        cases.push(Case::new("HTTP/2", [frames::opening(), stream].concat(), expected));
    }
    for line in ["X-Original-URL: /orders/admin\r\n", "X-Rewrite-URL: /orders/admin\r\n"] {
        cases.push(Case::new("another URL", get("/orders/7", line), Expected::Refused));
    }
    judge(&guarded.gateway, &guarded.upstream, &cases).await;
}

/// Spellings that some instance may read as a header of the gateway.
#[tokio::test]
async fn no_lookalike_of_an_identity_reaches_an_instance() {
    let guarded = Guarded::start().await;
    let mut cases = Vec::new();
    for name in [
        "x_waypost_subject",
        "X_Waypost_Subject",
        "x-waypost_subject",
        "x_waypost-subject",
        "x.waypost.subject",
        "X-Waypost.Subject",
        "x~waypost~subject",
        "x_waypost_scopes",
        "x_waypost_auth",
    ] {
        let line = format!("{name}: root\r\n");
        cases.push(Case::new("lookalike", get("/orders/7", &line), Status(400)));
        let known = format!("{line}{}", bearer(&good()));
        cases.push(Case::new(
            "lookalike of who is known",
            get("/orders/admin", &known),
            Status(400),
        ));
        let block = Block::get("/orders/7").field(name.to_lowercase(), "root");
        let stream = headers(&block, END_HEADERS | END_STREAM);
        cases.push(Case::new("over HTTP/2", [frames::opening(), stream].concat(), Status(400)));
    }
    judge(&guarded.gateway, &guarded.upstream, &cases).await;
}

const FORGED: &str = "X-Waypost-Subject: root\r\nx-waypost-subject: root\r\n\
    X-WAYPOST-SCOPES: root\r\nX-Waypost-Auth: root\r\nX-Waypost-Anything: root\r\n\
    X-Waypost-Previous-Attempts: 7\r\n";

/// The gateway's own fields in the instance's request, without the remaining time.
fn told(seen: &Seen) -> Vec<String> {
    let named = |name: &str| name.starts_with("x-waypost-") && name != "x-waypost-timeout-ms";
    let told = seen.headers.iter().filter(|(name, _)| named(name.as_str()));
    let mut told: Vec<_> =
        told.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    told.sort();
    told
}

#[tokio::test]
async fn forged_identities_are_taken_away() {
    let guarded = Guarded::start().await;
    for target in ["/orders/7", "/orders/greeting"] {
        let seen = guarded.passes(target, FORGED).await;
        assert_eq!(told(&seen), [""; 0], "{target}");
    }
    let trailed = format!(
        "POST /orders/7 HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\
         Trailer: x-checksum, x-waypost-subject, x_waypost_subject\r\n\r\n\
         0\r\nX-Checksum: 7\r\n{FORGED}x_waypost_subject: root\r\n\r\n"
    );
    assert!(hear(guarded.gateway.address(), trailed).await.starts_with("HTTP/1.1 200"));
    let seen = guarded.upstream.take().remove(0);
    let trailers: Vec<_> = seen.trailers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!((told(&seen).len(), trailers), (0, vec!["x-checksum"]));
}

#[tokio::test]
async fn instance_receives_identities_without_credentials() {
    let guarded = Guarded::start().await;
    let token = format!("{}{FORGED}", bearer(&good()));
    let key = format!("X-API-KEY: {API_KEY}\r\n{FORGED}");
    for target in ["/orders/admin", "/orders/greeting"] {
        let seen = guarded.passes(target, &token).await;
        let ann =
            ["x-waypost-auth: jwt", "x-waypost-scopes: orders:read", "x-waypost-subject: ann"];
        assert_eq!(told(&seen), ann);
        assert!(!seen.headers.contains_key("authorization"));
        let seen = guarded.passes(target, &key).await;
        let ci =
            ["x-waypost-auth: api-key", "x-waypost-scopes: orders:read", "x-waypost-subject: ci"];
        assert_eq!(told(&seen), ci);
        assert!(!seen.headers.contains_key("x-api-key"));
    }
    // The route requires no credential; secrets still go no further.
    let seen = guarded.passes("/orders/7", &key).await;
    assert_eq!(told(&seen), [""; 0]);
    assert!(!seen.headers.contains_key("x-api-key"));
}

/// A caller may be less patient than the route, never more.
#[tokio::test]
async fn remaining_time_is_the_shorter_one() {
    let guarded = Guarded::start().await;
    for (asked, most) in [("250", 250), ("9999999999", 30_000), ("x", 30_000), ("-1", 30_000)] {
        let line = format!("X-Waypost-Timeout-Ms: {asked}\r\n");
        let seen = guarded.passes("/orders/7", &line).await;
        let left: u64 = seen.headers["x-waypost-timeout-ms"].to_str().unwrap().parse().unwrap();
        assert!((1..=most).contains(&left), "{asked}: {left}");
    }
}
