//! Who is let in, who is not and why, and what instances get to know.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};
use jsonwebtoken::{Algorithm, EncodingKey, crypto, jwk::Jwk};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;

/// What the clock shows in all tests.
const NOW: u64 = 1_800_000_000;

const SECRET: &[u8] = b"a secret of more than thirty-two bytes";
const RSA: &str = include_str!("testdata/rsa.key.pem");
const RSA_PUBLIC: &str = include_str!("testdata/rsa.pub.pem");
const OTHER_RSA: &str = include_str!("testdata/other-rsa.key.pem");
const WEAK_RSA_PUBLIC: &str = include_str!("testdata/weak-rsa.pub.pem");
const P256: &str = include_str!("testdata/p256.key.pem");
const P256_PUBLIC: &str = include_str!("testdata/p256.pub.pem");
const P384: &str = include_str!("testdata/p384.key.pem");
const P384_PUBLIC: &str = include_str!("testdata/p384.pub.pem");
const ED25519: &str = include_str!("testdata/ed25519.key.pem");
const ED25519_PUBLIC: &str = include_str!("testdata/ed25519.pub.pem");

const CONFIG: &str = "
[jwt]
jwks = 'keys.json'
keys = [
    { kid = 'h', alg = 'HS256', secret_file = 'h.secret' },
    { kid = 'r', alg = 'RS256', public_key_file = 'r.pem' },
    { alg = 'EdDSA', public_key_file = 'ed.pem' },
]
issuer = ['https://id.example.com', 'https://other.example.com']
audience = 'api'
[api_keys]
file = 'api-keys.toml'
";

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

fn key(algorithm: Algorithm, pem: &str) -> EncodingKey {
    let pem = pem.as_bytes();
    let key = match algorithm {
        Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(pem),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(pem),
        _ => EncodingKey::from_rsa_pem(pem),
    };
    key.expect("a key for tests")
}

fn jwk(algorithm: Algorithm, key: &EncodingKey, kid: &str) -> Value {
    let jwk = Jwk::from_encoding_key(key, algorithm).expect("a key for tests");
    let mut jwk = serde_json::to_value(jwk).expect("a key is JSON");
    jwk["kid"] = kid.into();
    jwk
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn files() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let set = json!({ "keys": [
        jwk(Algorithm::ES256, &key(Algorithm::ES256, P256), "p256"),
        jwk(Algorithm::ES384, &key(Algorithm::ES384, P384), "p384"),
        jwk(Algorithm::PS256, &key(Algorithm::PS256, OTHER_RSA), "ps"),
        jwk(Algorithm::EdDSA, &key(Algorithm::EdDSA, ED25519), "ed"),
        jwk(Algorithm::HS384, &EncodingKey::from_secret(&[7; 48]), "oct"),
        { "kty": "RSA", "use": "enc", "kid": "for something else" },
        { "kty": "of the future" },
    ] });
    let api_keys = format!(
        "[[keys]]\nid = 'ci'\nsha256 = '{}'\nscopes = ['orders:read']\n\
         [[keys]]\nid = 'old'\nsha256 = '{}'\nexpires = '2027-01-15T08:00:00Z'\n\
         [[keys]]\nid = 'new'\nsha256 = '{}'\nexpires = 2027-01-15T08:00:01Z\n",
        hex(b"ci-key").to_uppercase(),
        hex(b"old-key"),
        hex(b"new-key"),
    );
    let secret = [SECRET, b"\n"].concat();
    for (name, content) in [
        ("keys.json", set.to_string().as_bytes()),
        ("api-keys.toml", api_keys.as_bytes()),
        ("h.secret", &secret),
        ("short.secret", b"short\n"),
        ("r.pem", RSA_PUBLIC.as_bytes()),
        ("r.key", RSA.as_bytes()),
        ("weak.pem", WEAK_RSA_PUBLIC.as_bytes()),
        ("p256.pem", P256_PUBLIC.as_bytes()),
        ("p384.pem", P384_PUBLIC.as_bytes()),
        ("ed.pem", ED25519_PUBLIC.as_bytes()),
    ] {
        fs::write(dir.path().join(name), content).expect("a file");
    }
    dir
}

fn load(text: &str) -> Result<Authenticator, Vec<String>> {
    Authenticator::load(&text.parse().expect("TOML"), files().path())
}

fn authenticator() -> Authenticator {
    load(CONFIG).expect("a configuration")
}

/// Claims that hold.
fn claims() -> Value {
    json!({
        "sub": "ann", "iss": "https://id.example.com", "aud": "api", "exp": NOW + 60,
        "scope": "orders:read orders:write",
    })
}

fn with(mut object: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else { return object };
    for (name, value) in changes {
        object[name] = value;
    }
    object
}

fn without(mut object: Value, name: &str) -> Value {
    object.as_object_mut().expect("an object").remove(name);
    object
}

/// A token of these texts.
fn signed_texts(header: &str, claims: &str, algorithm: Algorithm, key: &EncodingKey) -> String {
    let message = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let signature = crypto::sign(message.as_bytes(), key, algorithm).expect("a signature");
    format!("{message}.{signature}")
}

/// A token that says what is to be said of its key and algorithm.
fn signed(header: &Value, claims: &Value, algorithm: Algorithm, key: &EncodingKey) -> String {
    signed_texts(&header.to_string(), &claims.to_string(), algorithm, key)
}

/// A token of the key `h`.
fn token_of(header: Value, claims: &Value) -> String {
    let header = with(json!({ "alg": "HS256", "typ": "JWT", "kid": "h" }), header);
    signed(&header, claims, Algorithm::HS256, &EncodingKey::from_secret(SECRET))
}

fn token(claims: &Value) -> String {
    token_of(json!({}), claims)
}

fn headers<'a>(all: impl IntoIterator<Item = (&'static str, &'a str)>) -> HeaderMap {
    let value = |text| HeaderValue::from_str(text).expect("a value");
    let named = |(name, text)| (HeaderName::from_static(name), value(text));
    all.into_iter().map(named).fold(HeaderMap::new(), |mut headers, (name, value)| {
        headers.append(name, value);
        headers
    })
}

fn bearer(token: &str) -> HeaderMap {
    headers([("authorization", format!("Bearer {token}").as_str())])
}

fn identify(headers: &HeaderMap) -> Result<Option<Identity>, Unauthorized> {
    authenticator().identify(headers, now())
}

#[test]
fn a_token_of_each_kind_of_key_is_taken() {
    let authenticator = authenticator();
    for (algorithm, kid, key) in [
        (Algorithm::HS256, json!("h"), EncodingKey::from_secret(SECRET)),
        (Algorithm::HS384, json!("oct"), EncodingKey::from_secret(&[7; 48])),
        (Algorithm::RS256, json!("r"), key(Algorithm::RS256, RSA)),
        (Algorithm::PS256, json!("ps"), key(Algorithm::PS256, OTHER_RSA)),
        (Algorithm::ES256, json!("p256"), key(Algorithm::ES256, P256)),
        (Algorithm::ES384, json!("p384"), key(Algorithm::ES384, P384)),
        (Algorithm::EdDSA, json!("ed"), key(Algorithm::EdDSA, ED25519)),
        // By whichever key it is.
        (Algorithm::EdDSA, Value::Null, key(Algorithm::EdDSA, ED25519)),
        (Algorithm::RS256, Value::Null, key(Algorithm::RS256, RSA)),
    ] {
        let header = json!({ "alg": algorithm, "kid": kid });
        let token = signed(&header, &claims(), algorithm, &key);
        let identity = authenticator.identify(&bearer(&token), now());
        let identity = identity.expect("it holds").expect("it is one");
        assert_eq!(identity.subject, "ann", "{header}");
        assert_eq!(identity.method, Method::Jwt);
        assert!(identity.scopes.iter().eq(["orders:read", "orders:write"]));
    }
}

#[test]
fn a_key_of_a_set_without_alg_is_for_all_of_its_type() {
    let rsa = without(jwk(Algorithm::RS256, &key(Algorithm::RS256, RSA), "r"), "alg");
    let secret = json!({ "kty": "oct", "kid": "s", "k": URL_SAFE_NO_PAD.encode([7; 48]) });
    let dir = tempfile::tempdir().expect("a directory");
    let set = json!({ "keys": [rsa, secret] }).to_string();
    fs::write(dir.path().join("set.json"), set).expect("a file");
    let table = "[jwt]\njwks = 'set.json'".parse().expect("TOML");
    let authenticator = Authenticator::load(&table, dir.path()).expect("a configuration");
    let (rsa, secret) = (key(Algorithm::RS256, RSA), EncodingKey::from_secret(&[7; 48]));
    let refused = Err(Unauthorized::AlgorithmRefused);
    for (algorithm, kid, key, expected) in [
        (Algorithm::RS384, "r", &rsa, Ok(())),
        (Algorithm::PS512, "r", &rsa, Ok(())),
        (Algorithm::HS256, "r", &secret, refused),
        (Algorithm::HS256, "s", &secret, Ok(())),
        (Algorithm::HS384, "s", &secret, Ok(())),
        // It is too short for it.
        (Algorithm::HS512, "s", &secret, refused),
    ] {
        let token = signed(&json!({ "alg": algorithm, "kid": kid }), &claims(), algorithm, key);
        let taken = authenticator.identify(&bearer(&token), now());
        assert_eq!(taken.map(|_| ()), expected, "{algorithm:?}");
    }
}

#[test]
fn a_token_is_taken_by_what_it_says() {
    let authenticator = authenticator();
    for changes in [
        json!({ "iss": "https://other.example.com" }),
        json!({ "aud": ["web", "api"] }),
        json!({ "exp": NOW - 29 }),
        json!({ "exp": NOW as f64 + 0.5 }),
        json!({ "exp": u64::MAX }),
        json!({ "nbf": NOW + 30 }),
        json!({ "nbf": null }),
        json!({ "nbf": 0, "iat": "whenever", "jti": [1] }),
    ] {
        let token = token(&with(claims(), changes.clone()));
        let identity = authenticator.identify(&bearer(&token), now());
        assert!(matches!(identity, Ok(Some(_))), "{changes}: {identity:?}");
    }
    let token =
        token_of(json!({ "jwk": { "kty": "oct" }, "jku": "https://evil.example" }), &claims());
    assert!(identify(&bearer(&token)).is_ok(), "where else keys could be had doesn't matter");
}

#[test]
fn the_scheme_is_read_as_http_has_it() {
    let token = token(&claims());
    for text in [
        format!("Bearer {token}"),
        format!("bearer {token}"),
        format!("BEARER {token}"),
        format!("Bearer   {token}"),
    ] {
        assert!(matches!(identify(&headers([("authorization", text.as_str())])), Ok(Some(_))));
    }
}

#[test]
fn scopes_are_read_from_either_claim() {
    let scopes = |changes| {
        let token = token(&with(without(claims(), "scope"), changes));
        let identity = identify(&bearer(&token)).expect("it holds").expect("it is one");
        identity.scopes.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(scopes(json!({})), [""; 0]);
    assert_eq!(scopes(json!({ "scope": "  b a  a " })), ["a", "b"]);
    assert_eq!(scopes(json!({ "scp": "b a" })), ["a", "b"]);
    assert_eq!(scopes(json!({ "scp": ["b", "a c", ""] })), ["a c", "b"]);
    assert_eq!(scopes(json!({ "scope": "a", "scp": ["b"] })), ["a"]);
    assert_eq!(scopes(json!({ "scope": null, "scp": ["b"] })), ["b"]);
}

/// Tokens that are refused, by what is wrong with them.
fn bad_tokens() -> Vec<(&'static str, String, Unauthorized)> {
    use Unauthorized as No;
    let good = token(&claims());
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    let (header, payload) = message.split_once('.').expect("three parts");
    let (secret, rsa) = (EncodingKey::from_secret(SECRET), key(Algorithm::RS256, RSA));
    let (other_rsa, p256) = (key(Algorithm::RS256, OTHER_RSA), key(Algorithm::ES256, P256));
    let public_as_secret = EncodingKey::from_secret(RSA_PUBLIC.as_bytes());
    let of = |changes| token(&with(claims(), changes));
    let none = |name: &str| {
        let header = json!({ "alg": name, "typ": "JWT" }).to_string();
        format!("{}.{payload}.", URL_SAFE_NO_PAD.encode(header))
    };
    let text = claims().to_string();
    let twice = text.replacen('{', "{\"sub\":\"root\",", 1);
    let hs = |header: &str, claims: &str| signed_texts(header, claims, Algorithm::HS256, &secret);
    let head = "{\"alg\":\"HS256\",\"kid\":\"h\"}";
    let rs = |alg: &str, kid: &str| {
        signed(&json!({ "alg": alg, "kid": kid }), &claims(), Algorithm::RS256, &rsa)
    };
    let confused = |kid: Value| {
        let header = json!({ "alg": "HS256", "kid": kid });
        signed(&header, &claims(), Algorithm::HS256, &public_as_secret)
    };
    let stolen =
        signed(&json!({ "alg": "RS256", "kid": "r" }), &claims(), Algorithm::RS256, &other_rsa);
    let switched =
        signed(&json!({ "alg": "ES256", "kid": "r" }), &claims(), Algorithm::ES256, &p256);
    let embedded =
        json!({ "alg": "HS256", "jwk": { "kty": "oct", "k": URL_SAFE_NO_PAD.encode([9; 32]) } });
    let embedded =
        signed(&embedded, &claims(), Algorithm::HS256, &EncodingKey::from_secret(&[9; 32]));
    let root = URL_SAFE_NO_PAD.encode(with(claims(), json!({ "sub": "root" })).to_string());
    let middle = signature.len() / 2;
    vec![
        ("empty", String::new(), No::NoToken),
        ("no dots", good.replace('.', ""), No::NoToken),
        ("one dot", message.to_owned(), No::NoToken),
        ("four parts", format!("{good}.{signature}"), No::NoToken),
        ("a JWE", format!("{header}..{payload}.{payload}.{signature}"), No::NoToken),
        ("dots alone", "..".to_owned(), No::UnreadableHeader),
        ("huge", format!("{good}{}", "A".repeat(8 << 10)), No::TooLong),
        ("huge claims", of(json!({ "more": "x".repeat(8 << 10) })), No::TooLong),
        ("a header that is no base64", format!("!{good}"), No::UnreadableHeader),
        ("a header with padding", format!("{header}=.{payload}.{signature}"), No::UnreadableHeader),
        ("a header that is no JSON", hs("alg=HS256", &text), No::UnreadableHeader),
        ("a header that is a list", hs("[\"HS256\",\"h\"]", &text), No::UnreadableHeader),
        ("a header that is cut", hs("{\"alg\":\"HS256\"", &text), No::UnreadableHeader),
        ("a header with more after it", hs(&format!("{head}{{}}"), &text), No::UnreadableHeader),
        ("no alg", hs("{\"kid\":\"h\"}", &text), No::UnreadableHeader),
        (
            "an alg of another type",
            token_of(json!({ "alg": 256 }), &claims()),
            No::UnreadableHeader,
        ),
        ("a kid of another type", token_of(json!({ "kid": 1 }), &claims()), No::UnreadableHeader),
        ("alg twice", hs("{\"alg\":\"none\",\"alg\":\"HS256\"}", &text), No::UnreadableHeader),
        ("alg none", none("none"), No::AlgorithmRefused),
        ("alg None", none("None"), No::AlgorithmRefused),
        ("alg nOnE", none("nOnE"), No::AlgorithmRefused),
        ("alg empty", none(""), No::AlgorithmRefused),
        (
            "none, with a signature",
            token_of(json!({ "alg": "none" }), &claims()),
            No::AlgorithmRefused,
        ),
        (
            "an alg that nobody has",
            token_of(json!({ "alg": "ES256K" }), &claims()),
            No::AlgorithmRefused,
        ),
        ("alg in lower case", token_of(json!({ "alg": "hs256" }), &claims()), No::AlgorithmRefused),
        (
            "another alg of the type",
            token_of(json!({ "alg": "HS512" }), &claims()),
            No::AlgorithmRefused,
        ),
        ("RS512 by a key for RS256", rs("RS512", "r"), No::AlgorithmRefused),
        ("RS256 by a key for PS256", rs("RS256", "ps"), No::AlgorithmRefused),
        ("the public key as secret", confused(json!("r")), No::AlgorithmRefused),
        ("it, without a kid", confused(Value::Null), No::BadSignature),
        ("it, by the secret's kid", confused(json!("h")), No::BadSignature),
        ("an alg of another type of key", switched, No::AlgorithmRefused),
        ("an unknown kid", token_of(json!({ "kid": "x" }), &claims()), No::UnknownKey),
        ("an empty kid", token_of(json!({ "kid": "" }), &claims()), No::UnknownKey),
        (
            "a kid that is a path",
            token_of(json!({ "kid": "../../dev/null" }), &claims()),
            No::UnknownKey,
        ),
        (
            "the kid of another key",
            token_of(json!({ "kid": "oct" }), &claims()),
            No::AlgorithmRefused,
        ),
        ("a signature of another key", stolen, No::BadSignature),
        ("a key that it brings", embedded, No::BadSignature),
        ("no signature", format!("{message}."), No::BadSignature),
        ("a truncated signature", format!("{message}.{}", &signature[..middle]), No::BadSignature),
        ("a longer signature", format!("{good}AAAA"), No::BadSignature),
        ("a signature that is no base64", format!("{message}.***"), No::BadSignature),
        ("other claims", format!("{header}.{root}.{signature}"), No::BadSignature),
        ("trailing garbage", format!("{good} x"), No::BadSignature),
        ("a second one", format!("{good},{good}"), No::NoToken),
        ("crit", token_of(json!({ "crit": ["exp"] }), &claims()), No::Unsupported),
        ("crit of null", token_of(json!({ "crit": null }), &claims()), No::Unsupported),
        ("b64", token_of(json!({ "b64": false }), &claims()), No::Unsupported),
        ("nested", token_of(json!({ "cty": "JWT" }), &claims()), No::Unsupported),
        ("encrypted", token_of(json!({ "enc": "A128GCM" }), &claims()), No::Unsupported),
        ("compressed", token_of(json!({ "zip": "DEF" }), &claims()), No::Unsupported),
        ("claims that are no JSON", hs(head, "sub=ann"), No::UnreadableClaims),
        ("claims that are a list", hs(head, "[\"ann\"]"), No::UnreadableClaims),
        ("claims that are a text", hs(head, "\"ann\""), No::UnreadableClaims),
        ("a subject twice", hs(head, &twice), No::UnreadableClaims),
        ("no subject", token(&without(claims(), "sub")), No::NoSubject),
        ("a subject of null", of(json!({ "sub": null })), No::NoSubject),
        ("an empty subject", of(json!({ "sub": "" })), No::NoSubject),
        ("a subject of another type", of(json!({ "sub": 7 })), No::UnreadableClaims),
        ("no expiry", token(&without(claims(), "exp")), No::NoExpiry),
        ("an expiry of null", of(json!({ "exp": null })), No::NoExpiry),
        ("an expiry that is a text", of(json!({ "exp": "9999999999" })), No::UnreadableClaims),
        ("an expiry before 1970", of(json!({ "exp": -1 })), No::UnreadableClaims),
        ("an expiry beyond all time", of(json!({ "exp": 1e300 })), No::UnreadableClaims),
        ("expired", of(json!({ "exp": NOW - 3600 })), No::Expired),
        ("expired with its leeway", of(json!({ "exp": NOW - 30 })), No::Expired),
        ("expired in 1970", of(json!({ "exp": 0 })), No::Expired),
        ("not yet valid", of(json!({ "nbf": NOW + 31 })), No::NotYetValid),
        ("never valid", of(json!({ "nbf": u64::MAX })), No::NotYetValid),
        ("no issuer", token(&without(claims(), "iss")), No::WrongIssuer),
        ("another issuer", of(json!({ "iss": "https://evil.example" })), No::WrongIssuer),
        ("an issuer's beginning", of(json!({ "iss": "https://id.example" })), No::WrongIssuer),
        ("issuers", of(json!({ "iss": ["https://id.example.com"] })), No::UnreadableClaims),
        ("no audience", token(&without(claims(), "aud")), No::WrongAudience),
        ("another audience", of(json!({ "aud": "web" })), No::WrongAudience),
        ("other audiences", of(json!({ "aud": ["web", "API"] })), No::WrongAudience),
        ("audiences of none", of(json!({ "aud": [] })), No::WrongAudience),
        ("an audience of another type", of(json!({ "aud": 1 })), No::UnreadableClaims),
        ("scopes of another type", of(json!({ "scope": { "a": 1 } })), No::UnreadableClaims),
    ]
}

#[test]
fn a_token_that_does_not_hold_is_refused_with_its_reason() {
    let authenticator = authenticator();
    for (what, token, reason) in bad_tokens() {
        assert_eq!(authenticator.identify(&bearer(&token), now()), Err(reason), "{what}: {token}");
    }
}

#[test]
fn headers_that_do_not_hold_are_refused_with_their_reason() {
    let good = token(&claims());
    let bearer = format!("Bearer {good}");
    let basic = format!("Basic {good}");
    for (what, all, reason) in [
        ("another scheme", vec![("authorization", basic.as_str())], Unauthorized::NotBearer),
        ("no scheme", vec![("authorization", &good)], Unauthorized::NotBearer),
        ("nothing", vec![("authorization", "")], Unauthorized::NotBearer),
        ("a tab", vec![("authorization", "Bearer\tx")], Unauthorized::NotBearer),
        ("a scheme alone", vec![("authorization", "Bearer")], Unauthorized::NoToken),
        ("a scheme and spaces", vec![("authorization", "Bearer  ")], Unauthorized::NoToken),
        (
            "not ASCII",
            vec![("authorization", "Bearer \u{e9}.\u{e9}.")],
            Unauthorized::UnreadableHeader,
        ),
        (
            "twice",
            vec![("authorization", bearer.as_str()), ("authorization", &bearer)],
            Unauthorized::GivenTwice,
        ),
        (
            "a second one of another scheme",
            vec![("authorization", bearer.as_str()), ("authorization", "Basic x")],
            Unauthorized::GivenTwice,
        ),
        (
            "a token and a key",
            vec![("authorization", bearer.as_str()), ("x-api-key", "ci-key")],
            Unauthorized::TwoCredentials,
        ),
        (
            "a token and a bad key",
            vec![("authorization", bearer.as_str()), ("x-api-key", "")],
            Unauthorized::TwoCredentials,
        ),
        (
            "two keys",
            vec![("x-api-key", "ci-key"), ("x-api-key", "ci-key")],
            Unauthorized::GivenTwice,
        ),
        ("an unknown key", vec![("x-api-key", "ci-kez")], Unauthorized::UnknownApiKey),
        ("an empty key", vec![("x-api-key", "")], Unauthorized::UnknownApiKey),
        ("a key with a space", vec![("x-api-key", "ci key")], Unauthorized::UnknownApiKey),
        (
            "a key with a space after it",
            vec![("x-api-key", "ci-key ")],
            Unauthorized::UnknownApiKey,
        ),
        ("a key in upper case", vec![("x-api-key", "CI-KEY")], Unauthorized::UnknownApiKey),
        ("the id of a key", vec![("x-api-key", "ci")], Unauthorized::UnknownApiKey),
        ("a key that has expired", vec![("x-api-key", "old-key")], Unauthorized::ApiKeyExpired),
    ] {
        assert_eq!(identify(&headers(all)), Err(reason), "{what}");
    }
    let digest = hex(b"ci-key");
    let digest = headers([("x-api-key", digest.as_str())]);
    assert_eq!(identify(&digest), Err(Unauthorized::UnknownApiKey), "a digest is no key");
    let huge = "k".repeat((8 << 10) + 1);
    let huge = headers([("x-api-key", huge.as_str())]);
    assert_eq!(identify(&huge), Err(Unauthorized::TooLong));
    let mut bytes = HeaderMap::new();
    bytes.insert(AUTHORIZATION, HeaderValue::from_bytes(b"Bearer \xff\xfe").expect("a value"));
    assert_eq!(identify(&bytes), Err(Unauthorized::NoToken));
}

#[test]
fn an_api_key_is_taken_until_it_expires() {
    let identity = identify(&headers([("x-api-key", "ci-key")])).expect("it holds");
    let identity = identity.expect("it is one");
    assert_eq!((identity.subject.as_str(), identity.method), ("ci", Method::ApiKey));
    assert!(identity.scopes.iter().eq(["orders:read"]));
    let new = headers([("x-api-key", "new-key")]);
    assert!(identify(&new).is_ok());
    let later = now() + Duration::from_secs(1);
    let refused = authenticator().identify(&new, later);
    assert_eq!(refused, Err(Unauthorized::ApiKeyExpired));
}

#[test]
fn who_gives_nothing_is_nobody() {
    assert_eq!(identify(&HeaderMap::new()), Ok(None));
    assert_eq!(identify(&headers([("cookie", "token=x")])), Ok(None));
}

#[test]
fn a_method_that_is_not_configured_is_not_looked_at() {
    let token = token(&claims());
    let both = with_api_key(&token);
    let by_key = load("[api_keys]\nfile = 'api-keys.toml'\n").expect("a configuration");
    let identity = by_key.identify(&both, now()).expect("it holds").expect("it is one");
    assert_eq!(identity.method, Method::ApiKey);
    let mut passed_on = both.clone();
    by_key.pass_on(&mut passed_on, Some(&identity));
    assert!(passed_on.contains_key(AUTHORIZATION), "it is not the gateway's");
    let by_token = load("[jwt]\nkeys = [{ kid = 'h', alg = 'HS256', secret_file = 'h.secret' }]\n");
    let by_token = by_token.expect("a configuration");
    let identity = by_token.identify(&both, now()).expect("it holds").expect("it is one");
    assert_eq!(identity.method, Method::Jwt, "nor are issuer and audience asked");
}

fn with_api_key(token: &str) -> HeaderMap {
    let mut headers = bearer(token);
    headers.insert("x-api-key", HeaderValue::from_static("ci-key"));
    headers
}

#[test]
fn a_clock_before_1970_lets_nobody_in() {
    let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    let refused = authenticator().identify(&bearer(&token(&claims())), before);
    assert_eq!(refused, Err(Unauthorized::Expired));
}

#[test]
fn no_reason_tells_what_was_given() {
    for (_, token, reason) in bad_tokens() {
        let told = format!("{reason} {reason:?}");
        for part in token.split(['.', ' ', ',']).filter(|part| part.len() > 3) {
            assert!(!told.contains(part), "{told}");
        }
        let header = reason.www_authenticate();
        let header = header.to_str().expect("ASCII");
        let (start, description) =
            header.rsplit_once("error_description=\"").expect("it is described");
        assert_eq!(start, "Bearer error=\"invalid_token\", ");
        assert!(!description.strip_suffix('"').expect("quotes").contains(['"', '\\']));
    }
    let refused = Unauthorized::TwoCredentials.www_authenticate();
    assert!(refused.to_str().expect("ASCII").starts_with("Bearer error=\"invalid_request\""));
}

#[test]
fn algorithms_may_be_fewer_than_the_keys_are_for() {
    let config = CONFIG.replacen("audience", "algorithms = ['ES256']\naudience", 1);
    let authenticator = load(&config).expect("a configuration");
    let refused = authenticator.identify(&bearer(&token(&claims())), now());
    assert_eq!(refused, Err(Unauthorized::UnknownKey));
    let header = json!({ "alg": "ES256", "kid": "p256" });
    let token = signed(&header, &claims(), Algorithm::ES256, &key(Algorithm::ES256, P256));
    assert!(authenticator.identify(&bearer(&token), now()).is_ok());
}

#[test]
fn the_leeway_is_as_configured() {
    for (leeway, expired) in [("0s", true), ("1s", false), ("5min", false)] {
        let config = CONFIG.replacen("audience", &format!("leeway = '{leeway}'\naudience"), 1);
        let authenticator = load(&config).expect("a configuration");
        let token = token(&with(claims(), json!({ "exp": NOW })));
        let identity = authenticator.identify(&bearer(&token), now());
        assert_eq!(identity == Err(Unauthorized::Expired), expired, "{leeway}");
    }
}

#[test]
fn instances_are_told_who_calls_and_nothing_else() {
    let token = token(&claims());
    let mut passed_on = bearer(&token);
    for name in [
        "x-waypost-subject",
        "x_waypost_subject",
        "x-waypost_subject",
        "x_waypost-scopes",
        "x-waypost-scopes",
        "x_waypost_auth",
        "x-waypost-auth",
    ] {
        passed_on.append(name, HeaderValue::from_static("root"));
        passed_on.append(name, HeaderValue::from_static("admin"));
    }
    passed_on.insert("x-waypost-subjects", HeaderValue::from_static("mine"));
    let nobody = passed_on.clone();
    let authenticator = authenticator();
    let identity = authenticator.identify(&passed_on, now()).expect("it holds");
    authenticator.pass_on(&mut passed_on, identity.as_ref());
    assert_eq!(
        passed_on,
        headers([
            ("x-waypost-subjects", "mine"),
            ("x-waypost-subject", "ann"),
            ("x-waypost-scopes", "orders:read orders:write"),
            ("x-waypost-auth", "jwt"),
        ])
    );
    let mut passed_on = nobody;
    authenticator.pass_on(&mut passed_on, None);
    let left: Vec<_> = passed_on.keys().map(HeaderName::as_str).collect();
    assert_eq!(left, ["authorization", "x-waypost-subjects"]);
}

#[test]
fn an_api_key_never_reaches_an_instance() {
    let authenticator = authenticator();
    let mut passed_on = headers([("x-api-key", "old-key"), ("accept", "*/*")]);
    authenticator.pass_on(&mut passed_on, None);
    assert_eq!(passed_on, headers([("accept", "*/*")]));
    let mut passed_on = headers([("x-api-key", "new-key")]);
    let identity = authenticator.identify(&passed_on, now()).expect("it holds");
    authenticator.pass_on(&mut passed_on, identity.as_ref());
    let told = headers([("x-waypost-subject", "new"), ("x-waypost-auth", "api-key")]);
    assert_eq!(passed_on, told, "no scopes, no header");
}

#[test]
fn a_token_reaches_instances_where_it_is_to() {
    let authenticator = load(&format!("forward_authorization = true\n{CONFIG}"));
    let authenticator = authenticator.expect("a configuration");
    let mut passed_on = bearer(&token(&claims()));
    let identity = authenticator.identify(&passed_on, now()).expect("it holds");
    authenticator.pass_on(&mut passed_on, identity.as_ref());
    assert!(passed_on.contains_key(AUTHORIZATION));
    assert_eq!(passed_on["x-waypost-subject"], "ann");
}

#[test]
fn what_no_header_can_carry_is_encoded_and_stays_apart() {
    let authenticator = authenticator();
    let mut seen = std::collections::HashSet::new();
    for (subject, told) in [
        ("auth0|7", "auth0|7"),
        ("j\u{f6}rg", "j%C3%B6rg"),
        (" root", "%20root"),
        ("root\r\nx-admin: 1", "root%0D%0Ax-admin:%201"),
        ("a%20b", "a%2520b"),
        ("a b", "a%20b"),
        ("\0\u{7f}", "%00%7F"),
    ] {
        let scopes = ["a b".to_owned(), "c".to_owned()].into();
        let identity = Identity { subject: subject.into(), scopes, method: Method::Jwt };
        let mut headers = HeaderMap::new();
        authenticator.pass_on(&mut headers, Some(&identity));
        assert_eq!(headers["x-waypost-subject"], told);
        assert_eq!(headers["x-waypost-scopes"], "a%20b c");
        assert!(seen.insert(told));
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let mistakes = load(
        "miss = 1
         forward_authorization = 'yes'
         [jwt]
         jwks = 'nowhere.json'
         keys = [
             { kid = 'a', secret_file = 'h.secret' },
             { alg = 'HS257', secret_file = 'h.secret' },
             { alg = 'HS512', secret_file = 'h.secret' },
             { alg = 'HS256', secret_file = 'short.secret' },
             { alg = 'HS256', secret_file = 'r.pem' },
             { alg = 'HS256', public_key_file = 'r.pem' },
             { alg = 'RS256', public_key_file = 'p256.pem' },
             { alg = 'RS256', public_key_file = 'weak.pem' },
             { alg = 'RS256', public_key_file = 'r.key' },
             { alg = 'ES256', public_key_file = 'p384.pem' },
             { alg = 'EdDSA', public_key_file = 'h.secret', more = 1 },
             { kid = 'b', alg = 'RS256', public_key_file = 'r.pem' },
             { kid = 'b', alg = 'ES256', public_key_file = 'p256.pem' },
             { kid = 'b', alg = 'RS256', public_key_file = 'r.pem' },
         ]
         issuer = []
         audience = ['a', 1]
         algorithms = ['none', 'RS255', 'RS256']
         leeway = '6min'
         isuer = 'x'
         [api_keys]
         file = 'h.secret'
         header = 'no name'
         heder = 'x'",
    )
    .expect_err("mistakes");
    let expected = [
        "auth.forward_authorization: invalid type",
        "auth.miss: is no known key",
        "auth.jwt.issuer: must be",
        "auth.jwt.audience: must be",
        "auth.jwt.leeway: '6min' must be",
        "auth.jwt.algorithms: none would",
        "auth.jwt.algorithms: 'RS255' is no",
        "auth.jwt.jwks: nowhere.json can't be read",
        "auth.jwt.keys[0].alg: is missing",
        "auth.jwt.keys[0].secret_file: is no known key",
        "auth.jwt.keys[1].alg: 'HS257'",
        "auth.jwt.keys[1].secret_file: is no known key",
        "auth.jwt.keys[2].secret_file: is shorter",
        "auth.jwt.keys[3].secret_file: is shorter",
        "auth.jwt.keys[4].secret_file: is a PEM",
        "auth.jwt.keys[5].public_key_file: is not for HS256",
        "auth.jwt.keys[5].secret_file: is missing",
        "auth.jwt.keys[6].public_key_file: is a key of another type",
        "auth.jwt.keys[7].public_key_file: is an RSA key of less",
        "auth.jwt.keys[8].public_key_file: is a private key",
        "auth.jwt.keys[9].public_key_file: is a key of another curve",
        "auth.jwt.keys[10].public_key_file: is no PEM",
        "auth.jwt.keys[10].more: is no known key",
        "auth.jwt.keys[13].kid: is the one of another key",
        "auth.jwt.isuer: is no known key",
        "auth.api_keys.header: is no name",
        "auth.api_keys.heder: is no known key",
        "auth.api_keys.file: ",
    ];
    assert_eq!(mistakes.len(), expected.len(), "{mistakes:#?}");
    for (mistake, expected) in mistakes.iter().zip(expected) {
        assert!(mistake.starts_with(expected), "{mistake}, not {expected}");
    }
}

#[test]
fn a_set_with_a_broken_key_is_a_mistake() {
    let good = jwk(Algorithm::ES256, &key(Algorithm::ES256, P256), "p");
    let rsa = jwk(Algorithm::RS256, &key(Algorithm::RS256, RSA), "r");
    let x = &good["x"];
    let even = rsa["n"].as_str().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    let mut even = even.expect("a modulus");
    *even.last_mut().expect("a byte") &= 0xfe;
    let even = with(rsa.clone(), json!({ "n": URL_SAFE_NO_PAD.encode(even) }));
    for (set, told) in [
        ("no JSON".to_owned(), "is no JSON object"),
        ("{}".to_owned(), "is no JSON object"),
        (json!([good]).to_string(), "is no JSON object"),
        (json!({ "keys": [] }).to_string(), "there is no key"),
        (json!({ "keys": [7] }).to_string(), "keys[0]: is no JSON Web Key"),
        (json!({ "keys": [good, good] }).to_string(), "keys[1]: its kid"),
        (json!({ "keys": [good, { "kty": "oct" }] }).to_string(), "keys[1]: a member"),
        (json!({ "keys": [{ "kty": "oct", "k": "c2hvcnQ" }] }).to_string(), "keys[0]: is shorter"),
        (
            json!({ "keys": [with(good.clone(), json!({ "y": x }))] }).to_string(),
            "keys[0]: its point",
        ),
        (
            json!({ "keys": [with(good.clone(), json!({ "x": "AAAA" }))] }).to_string(),
            "keys[0]: its point",
        ),
        (
            json!({ "keys": [with(good.clone(), json!({ "alg": "RS256" }))] }).to_string(),
            "keys[0]: its alg",
        ),
        (
            json!({ "keys": [with(good.clone(), json!({ "x": "=" }))] }).to_string(),
            "keys[0]: a member",
        ),
        (
            json!({ "keys": [with(rsa.clone(), json!({ "n": "AQAB" }))] }).to_string(),
            "keys[0]: is an RSA",
        ),
        (
            json!({ "keys": [with(rsa.clone(), json!({ "e": "AQ" }))] }).to_string(),
            "keys[0]: is no RSA",
        ),
        (
            json!({ "keys": [with(rsa.clone(), json!({ "e": "" }))] }).to_string(),
            "keys[0]: is no RSA",
        ),
        (
            json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": "AAAA" }] }).to_string(),
            "keys[0]: is no Ed25519",
        ),
        (json!({ "keys": [even] }).to_string(), "keys[0]: is no RSA"),
        (json!({ "keys": vec![without(rsa, "kid"); 65] }).to_string(), "there are 65"),
        (
            json!({ "keys": [with(good.clone(), json!({ "use": "enc" }))] }).to_string(),
            "there is no key",
        ),
        (
            json!({ "keys": [with(good.clone(), json!({ "key_ops": [] }))] }).to_string(),
            "there is no key",
        ),
        (
            json!({ "keys": [with(good.clone(), json!({ "crv": "P-521" }))] }).to_string(),
            "there is no key",
        ),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("set.json"), &set).expect("a file");
        let table = "[jwt]\njwks = 'set.json'".parse().expect("TOML");
        let mistakes = Authenticator::load(&table, dir.path()).expect_err("a mistake");
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert!(mistakes[0].contains(told), "{mistakes:?}, not {told}, of {set}");
    }
}

#[test]
fn a_mistake_in_the_api_keys_is_told_with_its_place() {
    let (digest, empty) = (hex(b"a"), hex(b""));
    for (text, told) in [
        ("keys".to_owned(), "auth.api_keys.file: "),
        (String::new(), "auth.api_keys.file: keys: is missing"),
        ("more = 1\nkeys = []".to_owned(), "auth.api_keys.file: more: is no"),
        (format!("[[keys]]\nsha256 = '{digest}'"), "keys[0].id: is missing"),
        (format!("[[keys]]\nid = ''\nsha256 = '{digest}'"), "keys[0].id: is empty"),
        ("[[keys]]\nid = 'a'".to_owned(), "keys[0].sha256: is missing"),
        ("[[keys]]\nid = 'a'\nsha256 = 'a'".to_owned(), "keys[0].sha256: must be"),
        (format!("[[keys]]\nid = 'a'\nsha256 = '{empty}'"), "keys[0].sha256: must be"),
        (format!("[[keys]]\nid = 'a'\nsha256 = '+{}'", &digest[1..]), "keys[0].sha256: must be"),
        (format!("[[keys]]\nid = 'a'\nsha256 = '{digest}'\nscopes = 'a'"), "keys[0].scopes: "),
        (format!("[[keys]]\nid = 'a'\nsha256 = '{digest}'\nexpires = 'soon'"), "keys[0].expires: "),
        (format!("[[keys]]\nid = 'a'\nsha256 = '{digest}'\nexpires = 1"), "keys[0].expires: "),
        (format!("[[keys]]\nid = 'a'\nsha256 = '{digest}'\nkey = 'a'"), "keys[0].key: is no"),
        (
            format!(
                "[[keys]]\nid = 'a'\nsha256 = '{digest}'\n[[keys]]\nid = 'b'\nsha256 = '{digest}'"
            ),
            "keys[1].sha256: is there twice",
        ),
        (
            format!(
                "[[keys]]\nid = 'a'\nsha256 = '{digest}'\n[[keys]]\nid = 'a'\nsha256 = '{}'",
                hex(b"b")
            ),
            "keys[1].id: 'a' is there twice",
        ),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("keys.toml"), &text).expect("a file");
        let table = "[api_keys]\nfile = 'keys.toml'".parse().expect("TOML");
        let mistakes = Authenticator::load(&table, dir.path()).expect_err("a mistake");
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert!(mistakes[0].contains(told), "{mistakes:?}, not {told}");
    }
    for header in ["authorization", "X-Waypost-Subject", "x_waypost_auth"] {
        let config = format!("[api_keys]\nfile = 'api-keys.toml'\nheader = '{header}'");
        let mistakes = load(&config).expect_err("a mistake");
        assert!(mistakes[0].starts_with("auth.api_keys.header: "), "{mistakes:?}");
    }
}

#[test]
fn nothing_secret_is_shown() {
    let shown = format!("{:?}", authenticator());
    assert_eq!(shown, "Authenticator { jwt: true, api_keys: true, authorization: Removed }");
}
