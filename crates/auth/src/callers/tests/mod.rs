//! Tests of the whole crate, by topic. This file has the keys, tokens and files that they share.

mod configuration;
mod credentials;
mod forwarding;
mod invalid_tokens;
mod valid_tokens;

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue};
use jsonwebtoken::{Algorithm, EncodingKey, crypto, jwk::Jwk};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use waypost_config::{ConfigErrors, parse};

use crate::{Authenticator, Identity, Unauthorized};

/// The time of all tests, in seconds since 1970.
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
[auth.jwt]
jwks = 'keys.json'
keys = [
    { kid = 'h', alg = 'HS256', secret_file = 'h.secret' },
    { kid = 'r', alg = 'RS256', public_key_file = 'r.pem' },
    { alg = 'EdDSA', public_key_file = 'ed.pem' },
]
issuer = ['https://id.example.com', 'https://other.example.com']
audience = 'api'
[auth.api_keys]
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

/// Reads `[auth]` of a file, whose own files are in `directory`.
fn load_in(directory: &Path, text: &str) -> Result<Authenticator, ConfigErrors> {
    parse(text, |file| {
        let read = file.table("auth", |section| Authenticator::read(section, directory));
        Ok(read?.expect("a table"))
    })
}

fn load(text: &str) -> Result<Authenticator, ConfigErrors> {
    load_in(files().path(), text)
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

/// A token with this header, whatever the key and algorithm are.
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
