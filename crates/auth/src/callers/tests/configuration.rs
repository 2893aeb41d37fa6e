//! `[auth]` and the files that it names: all errors at once.

use std::fs;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;

use super::{authenticator, hex, load, load_in, with, without};
use crate::testing::SigningKey;

const INVALID: &str = "[auth]
miss = 1
forward_authorization = 'yes'
[auth.jwt]
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
[auth.api_keys]
file = 'h.secret'
header = 'no name'
heder = 'x'
";

#[test]
fn all_errors_are_reported_at_once_with_their_lines() {
    let errors = load(INVALID).expect_err("errors").to_string();
    let expected = [
        "line 2: auth.miss: is no known key",
        "line 3: auth.forward_authorization: must be true or false",
        "line 5: auth.jwt.jwks: cannot read nowhere.json: ",
        "line 7: auth.jwt.keys[0].alg: is missing",
        "line 8: auth.jwt.keys[1].alg: 'HS257' is not a known algorithm",
        "line 9: auth.jwt.keys[2].secret_file: is shorter",
        "line 10: auth.jwt.keys[3].secret_file: is shorter",
        "line 11: auth.jwt.keys[4].secret_file: is a PEM",
        "line 12: auth.jwt.keys[5].public_key_file: is not for HS256",
        "line 12: auth.jwt.keys[5].secret_file: is missing",
        "line 13: auth.jwt.keys[6].public_key_file: is a key of another type",
        "line 14: auth.jwt.keys[7].public_key_file: is an RSA key of less",
        "line 15: auth.jwt.keys[8].public_key_file: is a private key",
        "line 16: auth.jwt.keys[9].public_key_file: is a key of another curve",
        "line 17: auth.jwt.keys[10].public_key_file: is not a PEM",
        "line 17: auth.jwt.keys[10].more: is no known key",
        "line 20: auth.jwt.keys[13].kid: is that of another key",
        "line 22: auth.jwt.issuer: must not be empty",
        "line 23: auth.jwt.audience[1]: must be a string",
        "line 24: auth.jwt.algorithms[0]: 'none' would accept",
        "line 24: auth.jwt.algorithms[1]: 'RS255' is not",
        "line 25: auth.jwt.leeway: '6min' must be",
        "line 26: auth.jwt.isuer: is no known key",
        "line 28: auth.api_keys.file: h.secret, line 1: ",
        "line 29: auth.api_keys.header: 'no name' must be",
        "line 30: auth.api_keys.heder: is no known key",
    ];
    for (error, expected) in errors.lines().zip(expected) {
        assert!(error.starts_with(expected), "{error}, not {expected}");
    }
    assert_eq!(errors.lines().count(), expected.len(), "{errors}");
}

#[test]
fn table_without_a_method_is_an_error() {
    let errors = load("\n[auth]\n").expect_err("an error").to_string();
    assert!(
        errors.starts_with("line 2: auth.jwt: is missing, and so is auth.api_keys"),
        "{errors}"
    );
    let errors = load("[auth.jwt]\n").expect_err("an error").to_string();
    assert!(errors.starts_with("line 1: auth.jwt.jwks: is missing, and so is keys"), "{errors}");
    let errors = load("auth = 'hush'").expect_err("an error").to_string();
    assert_eq!(errors, "line 1: auth: must be a table, and is of type string");
}

/// Asserts the only error of a JWK set.
#[track_caller]
fn assert_set_error(set: &str, error: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("set.json"), set).expect("a file");
    let errors =
        load_in(dir.path(), "[auth.jwt]\njwks = 'set.json'").expect_err("an error").to_string();
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.starts_with("line 2: auth.jwt.jwks: "), "{errors}");
    assert!(errors.contains(error), "{errors}, not {error}, of {set}");
}

#[test]
fn jwk_set_without_usable_keys_is_an_error() {
    let good = SigningKey::p256().jwk("ES256", "p");
    let rsa = SigningKey::rsa().jwk("RS256", "r");
    for set in ["no JSON", "{}", &json!([good]).to_string()] {
        assert_set_error(set, "is not a JSON object");
    }
    for changes in [json!({ "use": "enc" }), json!({ "key_ops": [] }), json!({ "crv": "P-521" })] {
        let set = json!({ "keys": [with(good.clone(), changes)] });
        assert_set_error(&set.to_string(), "has no key");
    }
    assert_set_error(&json!({ "keys": [] }).to_string(), "has no key");
    let many = vec![without(rsa, "kid"); 65];
    assert_set_error(&json!({ "keys": many }).to_string(), "there are 65");
}

#[test]
fn jwk_set_with_an_invalid_key_is_an_error() {
    let good = SigningKey::p256().jwk("ES256", "p");
    let rsa = SigningKey::rsa().jwk("RS256", "r");
    let x = &good["x"];
    let even = rsa["n"].as_str().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    let mut even = even.expect("a modulus");
    *even.last_mut().expect("a byte") &= 0xfe;
    let even = URL_SAFE_NO_PAD.encode(even);
    for (key, error) in [
        (json!(7), "keys[0]: is not a JSON Web Key"),
        (json!({ "kty": "oct" }), "keys[0]: a member"),
        (json!({ "kty": "oct", "k": "c2hvcnQ" }), "keys[0]: is shorter"),
        (with(good.clone(), json!({ "y": x })), "keys[0]: its point"),
        (with(good.clone(), json!({ "x": "AAAA" })), "keys[0]: its point"),
        (with(good.clone(), json!({ "alg": "RS256" })), "keys[0]: its alg"),
        (with(good.clone(), json!({ "x": "=" })), "keys[0]: a member"),
        (with(rsa.clone(), json!({ "n": "AQAB" })), "keys[0]: is an RSA"),
        (with(rsa.clone(), json!({ "n": even })), "keys[0]: is not an RSA"),
        (with(rsa.clone(), json!({ "e": "AQ" })), "keys[0]: is not an RSA"),
        (with(rsa, json!({ "e": "" })), "keys[0]: is not an RSA"),
        (json!({ "kty": "OKP", "crv": "Ed25519", "x": "AAAA" }), "keys[0]: is not an Ed25519"),
    ] {
        assert_set_error(&json!({ "keys": [key] }).to_string(), error);
    }
    assert_set_error(&json!({ "keys": [good, good] }).to_string(), "keys[1]: its kid");
    assert_set_error(&json!({ "keys": [good, { "kty": "oct" }] }).to_string(), "keys[1]: a member");
}

/// Asserts the only error of an API-keys file.
#[track_caller]
fn assert_api_keys_error(text: &str, error: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("keys.toml"), text).expect("a file");
    let errors = load_in(dir.path(), "[auth.api_keys]\nfile = 'keys.toml'");
    let errors = errors.expect_err("an error").to_string();
    assert_eq!(errors.lines().count(), 1, "{errors}");
    let prefix = "line 2: auth.api_keys.file: keys.toml, ";
    assert!(
        errors.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(error)),
        "{errors}, not {error}"
    );
}

#[test]
fn errors_of_the_api_keys_file_have_its_lines() {
    let (digest, empty) = (hex(b"a"), hex(b""));
    assert_api_keys_error("keys", "line 1: ");
    assert_api_keys_error("", "line 1: keys: is missing");
    assert_api_keys_error("keys = []\nmore = 1", "line 2: more: is no");
    assert_api_keys_error(
        &format!("[[keys]]\nsha256 = '{digest}'"),
        "line 1: keys[0].id: is missing",
    );
    assert_api_keys_error("[[keys]]\nid = 'a'", "line 1: keys[0].sha256: is missing");
    let keyed = format!("[[keys]]\nsha256 = '{digest}'\n");
    assert_api_keys_error(&format!("{keyed}id = ''"), "line 3: keys[0].id: must not be empty");
    let named = "[[keys]]\nid = 'a'\n";
    for invalid in ["a", &empty, &format!("+{}", &digest[1..])] {
        let text = format!("{named}sha256 = '{invalid}'");
        assert_api_keys_error(&text, "line 3: keys[0].sha256: must be the 64 hex digits");
    }
    let valid = format!("{named}sha256 = '{digest}'\n");
    for (more, error) in [
        ("scopes = 'a'", "line 4: keys[0].scopes: must be an array"),
        ("scopes = ['a', 1]", "line 4: keys[0].scopes[1]: must be a string"),
        ("expires = 'soon'", "line 4: keys[0].expires: must be a time in UTC"),
        ("expires = 1", "line 4: keys[0].expires: must be a time in UTC"),
        ("key = 'a'", "line 4: keys[0].key: is no known key"),
    ] {
        assert_api_keys_error(&format!("{valid}{more}"), error);
    }
    let other_id = format!("{valid}[[keys]]\nid = 'b'\nsha256 = '{digest}'");
    assert_api_keys_error(&other_id, "line 4: keys[1].sha256: is the digest of another key");
    let other_digest = format!("{valid}[[keys]]\nid = 'a'\nsha256 = '{}'", hex(b"b"));
    assert_api_keys_error(&other_digest, "line 4: keys[1].id: 'a' is the id of another key");
}

#[test]
fn api_keys_without_keys_or_scopes_are_valid() {
    let dir = tempfile::tempdir().expect("a directory");
    for text in [
        "keys = []".to_owned(),
        format!("[[keys]]\nid = 'a'\nsha256 = '{}'\nscopes = []", hex(b"a")),
    ] {
        fs::write(dir.path().join("keys.toml"), text).expect("a file");
        load_in(dir.path(), "[auth.api_keys]\nfile = 'keys.toml'").expect("a configuration");
    }
}

#[test]
fn api_key_header_is_never_a_reserved_one() {
    for header in ["authorization", "X-Waypost-Subject", "x_waypost_auth"] {
        let config = format!("[auth.api_keys]\nfile = 'api-keys.toml'\nheader = '{header}'");
        let errors = load(&config).expect_err("an error").to_string();
        assert!(errors.starts_with("line 3: auth.api_keys.header: "), "{errors}");
    }
}

#[test]
fn debug_output_contains_no_secret() {
    let shown = format!("{:?}", authenticator());
    assert_eq!(shown, "Authenticator { jwt: true, api_keys: true, token_forwarding: Never }");
}
