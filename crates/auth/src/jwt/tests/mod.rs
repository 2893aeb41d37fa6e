//! Tests of the verifier of issuers' tokens. This file has the issuer, its keys and its tokens.
//!
//! `WAYPOST_SEED` replays the random tests, `WAYPOST_SOAK_SECONDS` makes them longer.

mod forged_tokens;
mod key_sets;
mod mutations;
mod service_accounts;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{VerifiedToken, Verifier};
use crate::{Unauthorized, testing::SigningKey};

/// The time of all tests, in seconds since 1970.
const NOW: u64 = 1_800_000_000;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const AUDIENCE: &str = "waypost";
const SUBJECT: &str = "system:serviceaccount:shop:orders";

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A set with a key for one algorithm, and one of each other type without `alg`.
fn set() -> Value {
    let mut any = SigningKey::p256().jwk("ES256", "any-es");
    any.as_object_mut().expect("a key").remove("alg");
    json!({ "keys": [
        SigningKey::rsa().jwk("RS256", "rsa"),
        SigningKey::ed25519().jwk("EdDSA", "ed"),
        SigningKey::p384().jwk("ES384", "es384"),
        any,
    ] })
}

fn of_set(set: &Value) -> Result<Verifier, Vec<String>> {
    Verifier::asymmetric_jwks(set.to_string().as_bytes(), ISSUER.to_owned(), AUDIENCE.to_owned())
}

fn verifier() -> Verifier {
    of_set(&set()).expect("a set")
}

/// Claims that are valid.
fn claims() -> Value {
    json!({ "sub": SUBJECT, "iss": ISSUER, "aud": [AUDIENCE], "exp": NOW + 3600 })
}

fn with(mut object: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else { return object };
    for (name, value) in changes {
        object[name] = value;
    }
    object
}

/// A token of the key `rsa`, whose header and claims have these changes.
fn token(header: Value, changes: Value) -> String {
    let header = with(json!({ "alg": "RS256", "kid": "rsa" }), header);
    let claims = with(claims(), changes).to_string();
    SigningKey::rsa().token_of_texts("RS256", &header.to_string(), &claims)
}

fn verify(token: &str) -> Result<VerifiedToken, Unauthorized> {
    verifier().verify(token, at(NOW))
}

/// The number of rounds of a random test, of which about `each_second` take a second.
fn rounds(each_second: usize) -> usize {
    let seconds = std::env::var("WAYPOST_SOAK_SECONDS").ok();
    let seconds = seconds.map_or(1, |text| text.parse().expect("a number"));
    each_second * seconds
}
