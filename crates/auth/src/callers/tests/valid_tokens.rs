//! Tokens that are accepted: by which keys, with which claims.

use std::fs;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{
    CONFIG, NOW, SECRET, authenticator, bearer, claims, headers, identify, load, load_in, now,
    signed, token, token_of, with, without,
};
use crate::{AuthMethod, Unauthorized, testing::SigningKey};

#[test]
fn token_of_each_key_type_is_accepted() {
    let authenticator = authenticator();
    for (algorithm, kid, key) in [
        ("HS256", json!("h"), SigningKey::secret(SECRET)),
        ("HS384", json!("oct"), SigningKey::secret(&[7; 48])),
        ("RS256", json!("r"), SigningKey::rsa()),
        ("PS256", json!("ps"), SigningKey::other_rsa()),
        ("ES256", json!("p256"), SigningKey::p256()),
        ("ES384", json!("p384"), SigningKey::p384()),
        ("EdDSA", json!("ed"), SigningKey::ed25519()),
        // By whichever key it is.
        ("EdDSA", Value::Null, SigningKey::ed25519()),
        ("RS256", Value::Null, SigningKey::rsa()),
    ] {
        let header = json!({ "alg": algorithm, "kid": kid });
        let token = signed(&header, &claims(), algorithm, &key);
        let identity = authenticator.identify(&bearer(&token), now());
        let identity = identity.expect("it holds").expect("it is one");
        assert_eq!(identity.subject, "ann", "{header}");
        assert_eq!(identity.method, AuthMethod::Jwt);
        assert!(identity.scopes.iter().eq(["orders:read", "orders:write"]));
    }
}

#[test]
fn jwk_without_alg_verifies_all_algorithms_of_its_type() {
    let rsa = without(SigningKey::rsa().jwk("RS256", "r"), "alg");
    let secret = json!({ "kty": "oct", "kid": "s", "k": URL_SAFE_NO_PAD.encode([7; 48]) });
    let dir = tempfile::tempdir().expect("a directory");
    let set = json!({ "keys": [rsa, secret] }).to_string();
    fs::write(dir.path().join("set.json"), set).expect("a file");
    let authenticator =
        load_in(dir.path(), "[auth.jwt]\njwks = 'set.json'").expect("a configuration");
    let (rsa, secret) = (SigningKey::rsa(), SigningKey::secret(&[7; 48]));
    let refused = Err(Unauthorized::AlgorithmNotAllowed);
    for (algorithm, kid, key, expected) in [
        ("RS384", "r", &rsa, Ok(())),
        ("PS512", "r", &rsa, Ok(())),
        ("HS256", "r", &secret, refused),
        ("HS256", "s", &secret, Ok(())),
        ("HS384", "s", &secret, Ok(())),
        // It is too short for it.
        ("HS512", "s", &secret, refused),
    ] {
        let token = signed(&json!({ "alg": algorithm, "kid": kid }), &claims(), algorithm, key);
        let taken = authenticator.identify(&bearer(&token), now());
        assert_eq!(taken.map(|_| ()), expected, "{algorithm:?}");
    }
}

#[test]
fn valid_claims_are_accepted() {
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
fn bearer_scheme_is_case_insensitive() {
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
fn scopes_come_from_either_claim() {
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

#[test]
fn configured_algorithms_restrict_the_keys() {
    let config = CONFIG.replacen("audience", "algorithms = ['ES256']\naudience", 1);
    let authenticator = load(&config).expect("a configuration");
    let refused = authenticator.identify(&bearer(&token(&claims())), now());
    assert_eq!(refused, Err(Unauthorized::UnknownKey));
    let header = json!({ "alg": "ES256", "kid": "p256" });
    let token = signed(&header, &claims(), "ES256", &SigningKey::p256());
    assert!(authenticator.identify(&bearer(&token), now()).is_ok());
}

#[test]
fn leeway_is_configurable() {
    for (leeway, expired) in [("0s", true), ("1s", false), ("5min", false)] {
        let config = CONFIG.replacen("audience", &format!("leeway = '{leeway}'\naudience"), 1);
        let authenticator = load(&config).expect("a configuration");
        let token = token(&with(claims(), json!({ "exp": NOW })));
        let identity = authenticator.identify(&bearer(&token), now());
        assert_eq!(identity == Err(Unauthorized::Expired), expired, "{leeway}");
    }
}
