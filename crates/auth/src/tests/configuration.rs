//! `[auth]` and the files that it names: all errors at once.

use std::fs;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde_json::json;

use super::{P256, RSA, authenticator, hex, jwk, key, load, with, without};
use crate::Authenticator;

/// A table in which each key has an error.
const INVALID: &str = "miss = 1
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
     heder = 'x'";

#[test]
fn all_errors_are_reported_at_once() {
    let mistakes = load(INVALID).expect_err("mistakes");
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

/// Asserts the only error of a JWK set.
#[track_caller]
fn assert_set_error(set: &str, error: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("set.json"), set).expect("a file");
    let table = "[jwt]\njwks = 'set.json'".parse().expect("TOML");
    let mistakes = Authenticator::load(&table, dir.path()).expect_err("a mistake");
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    assert!(mistakes[0].contains(error), "{mistakes:?}, not {error}, of {set}");
}

#[test]
fn jwk_set_without_usable_keys_is_an_error() {
    let good = jwk(Algorithm::ES256, &key(Algorithm::ES256, P256), "p");
    let rsa = jwk(Algorithm::RS256, &key(Algorithm::RS256, RSA), "r");
    for set in ["no JSON", "{}", &json!([good]).to_string()] {
        assert_set_error(set, "is no JSON object");
    }
    for changes in [json!({ "use": "enc" }), json!({ "key_ops": [] }), json!({ "crv": "P-521" })] {
        let set = json!({ "keys": [with(good.clone(), changes)] });
        assert_set_error(&set.to_string(), "there is no key");
    }
    assert_set_error(&json!({ "keys": [] }).to_string(), "there is no key");
    let many = vec![without(rsa, "kid"); 65];
    assert_set_error(&json!({ "keys": many }).to_string(), "there are 65");
}

#[test]
fn jwk_set_with_an_invalid_key_is_an_error() {
    let good = jwk(Algorithm::ES256, &key(Algorithm::ES256, P256), "p");
    let rsa = jwk(Algorithm::RS256, &key(Algorithm::RS256, RSA), "r");
    let x = &good["x"];
    let even = rsa["n"].as_str().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    let mut even = even.expect("a modulus");
    *even.last_mut().expect("a byte") &= 0xfe;
    let even = URL_SAFE_NO_PAD.encode(even);
    for (key, error) in [
        (json!(7), "keys[0]: is no JSON Web Key"),
        (json!({ "kty": "oct" }), "keys[0]: a member"),
        (json!({ "kty": "oct", "k": "c2hvcnQ" }), "keys[0]: is shorter"),
        (with(good.clone(), json!({ "y": x })), "keys[0]: its point"),
        (with(good.clone(), json!({ "x": "AAAA" })), "keys[0]: its point"),
        (with(good.clone(), json!({ "alg": "RS256" })), "keys[0]: its alg"),
        (with(good.clone(), json!({ "x": "=" })), "keys[0]: a member"),
        (with(rsa.clone(), json!({ "n": "AQAB" })), "keys[0]: is an RSA"),
        (with(rsa.clone(), json!({ "n": even })), "keys[0]: is no RSA"),
        (with(rsa.clone(), json!({ "e": "AQ" })), "keys[0]: is no RSA"),
        (with(rsa.clone(), json!({ "e": "" })), "keys[0]: is no RSA"),
        (json!({ "kty": "OKP", "crv": "Ed25519", "x": "AAAA" }), "keys[0]: is no Ed25519"),
    ] {
        assert_set_error(&json!({ "keys": [key] }).to_string(), error);
    }
    assert_set_error(&json!({ "keys": [good, good] }).to_string(), "keys[1]: its kid");
    assert_set_error(&json!({ "keys": [good, { "kty": "oct" }] }).to_string(), "keys[1]: a member");
}

#[test]
fn errors_of_the_api_keys_file_name_their_place() {
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
fn debug_output_contains_no_secret() {
    let shown = format!("{:?}", authenticator());
    assert_eq!(shown, "Authenticator { jwt: true, api_keys: true, authorization: Removed }");
}
