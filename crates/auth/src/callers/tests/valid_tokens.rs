//! Tokens that are accepted: by which keys, with which claims.

use std::fs;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::{
    CONFIG, ED25519, NOW, OTHER_RSA, P256, P384, RSA, SECRET, authenticator, bearer, claims,
    headers, identify, jwk, key, load, load_in, now, signed, token, token_of, with, without,
};
use crate::{AuthMethod, Unauthorized};

#[test]
fn token_of_each_key_type_is_accepted() {
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
        assert_eq!(identity.method, AuthMethod::Jwt);
        assert!(identity.scopes.iter().eq(["orders:read", "orders:write"]));
    }
}

#[test]
fn jwk_without_alg_verifies_all_algorithms_of_its_type() {
    let rsa = without(jwk(Algorithm::RS256, &key(Algorithm::RS256, RSA), "r"), "alg");
    let secret = json!({ "kty": "oct", "kid": "s", "k": URL_SAFE_NO_PAD.encode([7; 48]) });
    let dir = tempfile::tempdir().expect("a directory");
    let set = json!({ "keys": [rsa, secret] }).to_string();
    fs::write(dir.path().join("set.json"), set).expect("a file");
    let authenticator =
        load_in(dir.path(), "[auth.jwt]\njwks = 'set.json'").expect("a configuration");
    let (rsa, secret) = (key(Algorithm::RS256, RSA), EncodingKey::from_secret(&[7; 48]));
    let refused = Err(Unauthorized::AlgorithmNotAllowed);
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
    let token = signed(&header, &claims(), Algorithm::ES256, &key(Algorithm::ES256, P256));
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
