//! Tokens of service accounts, as a Kubernetes API server signs them.

use serde_json::{Value, json};

use super::{AUDIENCE, ISSUER, NOW, SUBJECT, at, claims, of_set, set, token, verifier, with};
use crate::{Unauthorized, jwt::VerifiedToken, testing::SigningKey};

const KID: &str = "8gLMpJ2s0b3bMBIkUGDJqPF7Lw4Cw2tY3mXvFq5cN9k";

/// The claims of a projected token: `expirationSeconds: 3600` and the audience of the registry.
fn service_account() -> Value {
    json!({
        "aud": [AUDIENCE],
        "exp": NOW + 3600,
        "iat": NOW,
        "iss": ISSUER,
        "jti": "0d6a5b8e-8a4f-4c53-9a57-3d2f4f0f7a11",
        "kubernetes.io": {
            "namespace": "shop",
            "node": { "name": "node-1", "uid": "6f0e2a44-2a2e-4a38-8f7e-3f1f6c8d9b01" },
            "pod": { "name": "orders-6d9c-x2x", "uid": "c6b0f3a2-0b52-4f3e-8a3d-9a4d2b7c5e10" },
            "serviceaccount": { "name": "orders", "uid": "b7c9d1e3-5f70-4a81-92b3-c4d5e6f70819" },
            "warnafter": NOW + 3607,
        },
        "nbf": NOW,
        "sub": SUBJECT,
    })
}

#[test]
fn token_of_a_service_account_is_verified() {
    // The answer of `kubectl get --raw /openid/v1/jwks`, with the key before its rotation.
    let set = json!({ "keys": [
        SigningKey::other_rsa().jwk("RS256", "before"),
        SigningKey::rsa().jwk("RS256", KID),
    ] });
    let verifier = of_set(&set).expect("a set");
    let header = json!({ "alg": "RS256", "kid": KID });
    let token = SigningKey::rsa().token(&header, &service_account());
    let expected = VerifiedToken {
        subject: SUBJECT.to_owned(),
        issuer: ISSUER.to_owned(),
        expires: at(NOW + 3600),
        id: Some("0d6a5b8e-8a4f-4c53-9a57-3d2f4f0f7a11".to_owned()),
    };
    assert_eq!(verifier.verify(&token, at(NOW)), Ok(expected.clone()));
    // The leeway is 30 s at both ends, and is no part of the expiry.
    assert_eq!(verifier.verify(&token, at(NOW + 3629)), Ok(expected.clone()));
    assert_eq!(verifier.verify(&token, at(NOW + 3630)), Err(Unauthorized::Expired));
    assert_eq!(verifier.verify(&token, at(NOW - 30)), Ok(expected));
    assert_eq!(verifier.verify(&token, at(NOW - 31)), Err(Unauthorized::NotYetValid));
    // A token of the default audience is for the API server alone.
    let for_the_server = with(service_account(), json!({ "aud": [ISSUER] }));
    let token = SigningKey::rsa().token(&header, &for_the_server);
    assert_eq!(verifier.verify(&token, at(NOW)), Err(Unauthorized::WrongAudience));
}

#[test]
fn token_of_each_key_type_is_verified() {
    let verifier = verifier();
    for (algorithm, kid, key) in [
        ("RS256", "rsa", SigningKey::rsa()),
        ("EdDSA", "ed", SigningKey::ed25519()),
        ("ES384", "es384", SigningKey::p384()),
        ("ES256", "any-es", SigningKey::p256()),
    ] {
        for header in [json!({ "alg": algorithm, "kid": kid }), json!({ "alg": algorithm })] {
            let token = key.token(&header, &claims());
            let verified = verifier.verify(&token, at(NOW)).map(|token| token.subject);
            assert_eq!(verified.as_deref(), Ok(SUBJECT), "{header}");
        }
    }
}

#[test]
fn jwk_without_alg_verifies_all_rsa_algorithms() {
    let mut set = set();
    set["keys"][0].as_object_mut().expect("a key").remove("alg");
    let verifier = of_set(&set).expect("a set");
    for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
        let header = json!({ "alg": algorithm, "kid": "rsa" });
        let token = SigningKey::rsa().token(&header, &claims());
        assert!(verifier.verify(&token, at(NOW)).is_ok(), "{algorithm}");
        let by_another = SigningKey::other_rsa().token(&header, &claims());
        let refused = verifier.verify(&by_another, at(NOW));
        assert_eq!(refused, Err(Unauthorized::BadSignature), "{algorithm}");
    }
}

#[test]
fn optional_claims_may_be_missing_or_of_other_types() {
    for (changes, id) in [
        (json!({}), None),
        (json!({ "jti": "a" }), Some("a")),
        (json!({ "jti": 7 }), None),
        (json!({ "jti": null, "iat": "whenever", "scope": ["a"] }), None),
        (json!({ "aud": AUDIENCE, "nbf": null }), None),
        (json!({ "exp": NOW as f64 + 0.5 }), None),
        (json!({ "exp": 253_402_300_799_u64 }), None),
    ] {
        let verified = super::verify(&token(json!({ "typ": "JWT" }), changes.clone()));
        let verified = verified.map(|token| token.id);
        assert_eq!(verified, Ok(id.map(str::to_owned)), "{changes}");
    }
}

#[test]
fn debug_output_contains_no_key() {
    let shown = format!("{:?}", verifier());
    let expected = format!(
        "Verifier {{ issuer: Some([\"{ISSUER}\"]), audience: Some([\"{AUDIENCE}\"]), .. }}"
    );
    assert_eq!(shown, expected);
}
