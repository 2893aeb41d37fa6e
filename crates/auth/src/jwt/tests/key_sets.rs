//! Sets of keys that are errors, and keys of a set that are ignored.

use serde_json::{Value, json};

use super::{of_set, set, with};
use crate::{jwt::Verifier, testing::SigningKey};

#[track_caller]
fn assert_errors(set: &Value, expected: &[&str]) {
    let errors = of_set(set).map(|_| ()).expect_err("errors");
    assert_eq!(errors.len(), expected.len(), "{errors:?}");
    for (error, expected) in errors.iter().zip(expected) {
        assert!(error.starts_with(expected), "{error}, not {expected}");
    }
}

#[test]
fn secret_and_private_keys_are_errors() {
    let public = SigningKey::p256().jwk("ES256", "a");
    let secret = SigningKey::secret(&[7; 64]).jwk("HS256", "b");
    let private = with(public.clone(), json!({ "kid": "c", "d": "AAAA" }));
    let symmetric = "is a symmetric key, and only public keys may be here";
    for secret in [
        secret.clone(),
        with(secret.clone(), json!({ "use": "enc" })),
        with(secret.clone(), json!({ "alg": "RS256" })),
        json!({ "kty": "oct" }),
        json!({ "kty": "future", "k": "AAAA" }),
    ] {
        let set = json!({ "keys": [public, secret] });
        assert_errors(&set, &[&format!("keys[1]: {symmetric}")]);
    }
    let set = json!({ "keys": [private, secret, public] });
    assert_errors(&set, &["keys[0]: is a private key", &format!("keys[1]: {symmetric}")]);
}

#[test]
fn all_errors_of_a_set_are_reported() {
    let good = SigningKey::p256().jwk("ES256", "a");
    let rsa = SigningKey::rsa().jwk("RS256", "r");
    let set = json!({ "keys": [
        7,
        with(good.clone(), json!({ "x": "AAAA" })),
        with(good.clone(), json!({ "y": good["x"] })),
        with(rsa.clone(), json!({ "n": "AQAB" })),
        with(rsa.clone(), json!({ "e": "AQ" })),
        with(rsa.clone(), json!({ "alg": "ES256" })),
        good,
        good,
    ] });
    assert_errors(
        &set,
        &[
            "keys[0]: is not a JSON Web Key",
            "keys[1]: its point has another length",
            "keys[2]: its point is not on its curve",
            "keys[3]: is an RSA key of less than 2048",
            "keys[4]: is not an RSA key",
            "keys[5]: its alg does not fit its type",
            "keys[7]: its kid is that of another key",
        ],
    );
    assert_errors(&json!({ "keys": [] }), &["has no key for signatures"]);
    assert_errors(&json!({ "keys": {} }), &["is not a JSON object with a list of keys"]);
    let ignored = json!({ "keys": [{ "kty": "RSA", "use": "enc" }, { "kty": "future" }] });
    assert_errors(&ignored, &["has no key for signatures"]);
    let mut nameless = rsa;
    nameless.as_object_mut().expect("a key").remove("kid");
    assert_errors(&json!({ "keys": vec![nameless; 65] }), &["there are 65 keys, at most 64"]);
}

#[test]
fn large_or_broken_file_is_an_error() {
    let read = |bytes: &[u8]| {
        Verifier::asymmetric_jwks(bytes, "issuer".to_owned(), "audience".to_owned())
            .map(|_| ())
            .expect_err("errors")
    };
    let set = set().to_string();
    let padded = [set.as_bytes(), &vec![b' '; 1 << 20]].concat();
    assert_eq!(read(&padded), ["is larger than 1 MiB"]);
    let deep = [b"{\"keys\":".as_slice(), &vec![b'['; 1 << 19]].concat();
    for bytes in [b"".as_slice(), b"null", b"[]", b"\xff\xfe", &deep, &set.as_bytes()[1..]] {
        assert_eq!(read(bytes), ["is not a JSON object with a list of keys"]);
    }
}

#[test]
fn keys_of_other_purposes_are_ignored() {
    let mut set = set();
    let keys = set["keys"].as_array_mut().expect("keys");
    keys.push(json!({ "kty": "RSA", "use": "enc", "kid": "rsa" }));
    keys.push(json!({ "kty": "EC", "crv": "P-521", "kid": "rsa" }));
    keys.push(json!({ "kty": "future", "kid": "rsa", "alg": "none" }));
    assert!(of_set(&set).is_ok());
}
