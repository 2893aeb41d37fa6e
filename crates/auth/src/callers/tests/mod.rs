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

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use waypost_config::{ConfigErrors, parse};

use crate::{
    Authenticator, Identity, Unauthorized,
    testing::{
        ED25519_PUBLIC, P256_PUBLIC, P384_PUBLIC, RSA_PRIVATE, RSA_PUBLIC, SigningKey,
        WEAK_RSA_PUBLIC,
    },
};

/// The time of all tests, in seconds since 1970.
const NOW: u64 = 1_800_000_000;

const SECRET: &[u8] = b"a secret of more than thirty-two bytes";
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

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn files() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let set = json!({ "keys": [
        SigningKey::p256().jwk("ES256", "p256"),
        SigningKey::p384().jwk("ES384", "p384"),
        SigningKey::other_rsa().jwk("PS256", "ps"),
        SigningKey::ed25519().jwk("EdDSA", "ed"),
        SigningKey::secret(&[7; 48]).jwk("HS384", "oct"),
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
        ("r.key", RSA_PRIVATE.as_bytes()),
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

/// A token with this header, by this algorithm of the key, whichever the header names.
fn signed(header: &Value, claims: &Value, algorithm: &str, key: &SigningKey) -> String {
    key.token_of_texts(algorithm, &header.to_string(), &claims.to_string())
}

/// A token of the key `h`.
fn token_of(header: Value, claims: &Value) -> String {
    let header = with(json!({ "alg": "HS256", "typ": "JWT", "kid": "h" }), header);
    signed(&header, claims, "HS256", &SigningKey::secret(SECRET))
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
