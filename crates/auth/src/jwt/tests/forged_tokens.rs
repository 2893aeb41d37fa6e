//! Tokens that are rejected, each with its reason.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{AUDIENCE, ISSUER, NOW, at, claims, token, verifier, verify, with};
use crate::{
    Unauthorized as No,
    testing::{RSA_PUBLIC, SigningKey},
};

const HEADER: &str = "{\"alg\":\"RS256\",\"kid\":\"rsa\"}";

#[track_caller]
fn assert_refused(cases: impl IntoIterator<Item = (&'static str, String, No)>) {
    let verifier = verifier();
    for (what, token, reason) in cases {
        assert_eq!(verifier.verify(&token, at(NOW)), Err(reason), "{what}: {token}");
    }
}

fn of_header(changes: Value) -> String {
    token(changes, json!({}))
}

fn of_claims(changes: Value) -> String {
    token(json!({}), changes)
}

/// A token with these texts, by the key that its header names.
fn of_texts(header: &str, claims: &str) -> String {
    SigningKey::rsa().token_of_texts("RS256", header, claims)
}

fn without(name: &str) -> String {
    let mut claims = claims();
    claims.as_object_mut().expect("an object").remove(name);
    of_texts(HEADER, &claims.to_string())
}

#[test]
fn other_shapes_are_refused() {
    let good = of_header(json!({}));
    let (message, signature) = good.rsplit_once('.').expect("a signature");
    let (header, payload) = message.split_once('.').expect("claims");
    assert!(verify(&good).is_ok());
    assert_refused([
        ("empty", String::new(), No::MalformedToken),
        ("no dots", good.replace('.', ""), No::MalformedToken),
        ("one dot", message.to_owned(), No::MalformedToken),
        ("three dots", format!("{good}."), No::MalformedToken),
        ("four dots", format!("{header}..{payload}.{payload}.{signature}"), No::MalformedToken),
        ("two dots alone", "..".to_owned(), No::UnreadableHeader),
        ("four dots alone", "....".to_owned(), No::MalformedToken),
        ("oversized", format!("{good}{}", "A".repeat(8 << 10)), No::TooLong),
        ("padding", format!("{message}.{signature}="), No::BadSignature),
        ("a space", format!("{good} "), No::BadSignature),
        ("base64 of another alphabet", format!("{message}.+/+/"), No::BadSignature),
        ("not ASCII", "\u{e9}.\u{e9}.\u{e9}".to_owned(), No::UnreadableHeader),
    ]);
    let longest = of_claims(json!({ "pad": "x".repeat(5_500) }));
    assert!(longest.len() <= 8 << 10 && verify(&longest).is_ok());
}

#[test]
fn header_that_changes_the_meaning_is_refused() {
    let text = claims().to_string();
    assert_refused([
        ("crit", of_header(json!({ "crit": ["exp"] })), No::Unsupported),
        ("crit of nothing", of_header(json!({ "crit": [] })), No::Unsupported),
        ("crit of null", of_header(json!({ "crit": null })), No::Unsupported),
        ("b64", of_header(json!({ "b64": false })), No::Unsupported),
        ("b64 that is the default", of_header(json!({ "b64": true })), No::Unsupported),
        ("both", of_header(json!({ "crit": ["b64"], "b64": false })), No::Unsupported),
        ("nested", of_header(json!({ "cty": "JWT" })), No::Unsupported),
        ("encrypted", of_header(json!({ "enc": "A128GCM" })), No::Unsupported),
        ("compressed", of_header(json!({ "zip": "DEF" })), No::Unsupported),
        ("no alg", of_texts("{\"kid\":\"rsa\"}", &text), No::UnreadableHeader),
        ("alg of another type", of_header(json!({ "alg": ["RS256"] })), No::UnreadableHeader),
        ("kid of another type", of_header(json!({ "kid": ["rsa"] })), No::UnreadableHeader),
        ("a list", of_texts("[\"RS256\",\"rsa\"]", &text), No::UnreadableHeader),
        ("more after it", of_texts(&format!("{HEADER}{{}}"), &text), No::UnreadableHeader),
        ("a byte order mark", of_texts(&format!("\u{feff}{HEADER}"), &text), No::UnreadableHeader),
    ]);
    for twice in [
        "{\"alg\":\"none\",\"alg\":\"RS256\",\"kid\":\"rsa\"}",
        "{\"alg\":\"RS256\",\"kid\":\"ed\",\"kid\":\"rsa\"}",
        "{\"alg\":\"RS256\",\"\\u0061lg\":\"RS256\",\"kid\":\"rsa\"}",
    ] {
        assert_refused([("twice", of_texts(twice, &text), No::UnreadableHeader)]);
    }
}

#[test]
fn algorithm_of_another_key_is_refused() {
    let none = |name: &str| {
        let header = json!({ "alg": name, "typ": "JWT" }).to_string();
        let [header, payload] = [header, claims().to_string()].map(|s| URL_SAFE_NO_PAD.encode(s));
        format!("{header}.{payload}.")
    };
    for name in ["none", "None", "nOnE", "", "RS256 ", "rs256", "ES512", "ES256K", "RSA-OAEP"] {
        assert_refused([("none", none(name), No::AlgorithmNotAllowed)]);
    }
    // The public key as a secret, in each form that a library could keep it in.
    let pem = RSA_PUBLIC.as_bytes();
    let der = pem::parse(pem).expect("a PEM").into_contents();
    let modulus = SigningKey::rsa().jwk("RS256", "rsa")["n"].as_str().expect("a text").to_owned();
    let number = URL_SAFE_NO_PAD.decode(&modulus).expect("a number");
    for secret in [pem, pem.trim_ascii_end(), &der, modulus.as_bytes(), &number, b"", b"rsa"] {
        for header in [
            json!({ "alg": "HS256", "kid": "rsa" }),
            json!({ "alg": "HS384", "kid": "rsa" }),
            json!({ "alg": "HS512" }),
        ] {
            let token = SigningKey::secret(secret).token(&header, &claims());
            assert_refused([("public key as secret", token, No::AlgorithmNotAllowed)]);
        }
    }
    let by = |key: SigningKey, alg: &str, kid: &str| {
        key.token(&json!({ "alg": alg, "kid": kid }), &claims())
    };
    assert_refused([
        ("another of its type", by(SigningKey::rsa(), "RS512", "rsa"), No::AlgorithmNotAllowed),
        ("PSS", by(SigningKey::rsa(), "PS256", "rsa"), No::AlgorithmNotAllowed),
        ("another type", by(SigningKey::p256(), "ES256", "rsa"), No::AlgorithmNotAllowed),
        ("another curve", by(SigningKey::p384(), "ES384", "any-es"), No::AlgorithmNotAllowed),
        ("another curve, renamed", by(SigningKey::p384(), "ES256", "any-es"), No::BadSignature),
        ("PSS, renamed", pss_as_pkcs1(), No::BadSignature),
    ]);
}

/// A token whose signature is of PS256 and whose header names RS256.
fn pss_as_pkcs1() -> String {
    SigningKey::rsa().token_of_texts("PS256", HEADER, &claims().to_string())
}

#[test]
fn signature_of_another_key_is_refused() {
    let good = of_header(json!({}));
    let (message, signature) = good.rsplit_once('.').expect("a signature");
    let (header, _) = message.split_once('.').expect("claims");
    let root = URL_SAFE_NO_PAD.encode(with(claims(), json!({ "sub": "root" })).to_string());
    let other = SigningKey::other_rsa();
    let own = other.jwk("RS256", "rsa");
    let embedded = json!({ "alg": "RS256", "kid": "rsa", "jwk": own });
    let linked = json!({ "alg": "RS256", "jku": "https://evil.example/keys", "x5u": "https://x" });
    let ed = SigningKey::ed25519().token(&json!({ "alg": "EdDSA", "kid": "ed" }), &claims());
    let (message_of_ed, _) = ed.rsplit_once('.').expect("a signature");
    // Zeros verify with libraries that do not check the range of a signature (CVE-2022-21449).
    let zeros = |bytes: usize| URL_SAFE_NO_PAD.encode(vec![0; bytes]);
    let es = |kid: &str, alg: &str, bytes: usize| {
        let header = json!({ "alg": alg, "kid": kid }).to_string();
        let parts = [header, claims().to_string()].map(|part| URL_SAFE_NO_PAD.encode(part));
        format!("{}.{}", parts.join("."), zeros(bytes))
    };
    assert_refused([
        ("unknown kid", of_header(json!({ "kid": "x" })), No::UnknownKey),
        ("empty kid", of_header(json!({ "kid": "" })), No::UnknownKey),
        ("kid in other letters", of_header(json!({ "kid": "RSA" })), No::UnknownKey),
        ("kid that is a path", of_header(json!({ "kid": "../../dev/null" })), No::UnknownKey),
        ("kid of another key", of_header(json!({ "kid": "ed" })), No::AlgorithmNotAllowed),
        ("another key", other.token(&json!({ "alg": "RS256" }), &claims()), No::BadSignature),
        ("an embedded key", other.token(&embedded, &claims()), No::BadSignature),
        ("a linked key", other.token(&linked, &claims()), No::BadSignature),
        ("no signature", format!("{message}."), No::BadSignature),
        (
            "half of it",
            format!("{message}.{}", &signature[..signature.len() / 2]),
            No::BadSignature,
        ),
        ("longer", format!("{message}.{signature}AAAA"), No::BadSignature),
        ("other claims", format!("{header}.{root}.{signature}"), No::BadSignature),
        ("signature of another", format!("{message_of_ed}.{signature}"), No::BadSignature),
        ("zeros of RSA", format!("{message}.{}", zeros(256)), No::BadSignature),
        ("zeros of ES256", es("any-es", "ES256", 64), No::BadSignature),
        ("zeros of ES384", es("es384", "ES384", 96), No::BadSignature),
        ("zeros of EdDSA", es("ed", "EdDSA", 64), No::BadSignature),
    ]);
}

#[test]
fn unreadable_claims_are_refused() {
    let good = claims().to_string();
    for (what, text) in [
        ("no JSON", "sub=ann".to_owned()),
        ("a list", "[\"ann\"]".to_owned()),
        ("nothing", String::new()),
        ("a subject twice", good.replacen('{', "{\"sub\":\"root\",", 1)),
        ("an issuer twice", good.replacen('{', "{\"iss\":\"https://evil.example\",", 1)),
        ("an audience twice", good.replacen('{', "{\"aud\":\"other\",", 1)),
        ("an expiry twice", good.replacen('{', "{\"exp\":1,", 1)),
        ("a subject twice, escaped", good.replacen('{', "{\"s\\u0075b\":\"root\",", 1)),
        ("more after it", format!("{good}{good}")),
        ("deep", format!("{{\"jti\":{}1{},{}", "[".repeat(200), "]".repeat(200), &good[1..])),
        ("half a surrogate", good.replacen("system", "\\ud800", 1)),
    ] {
        assert_refused([(what, of_texts(HEADER, &text), No::UnreadableClaims)]);
    }
    for changes in [
        json!({ "exp": "9999999999" }),
        json!({ "exp": -1 }),
        json!({ "exp": -1.5 }),
        json!({ "exp": 1e300 }),
        json!({ "exp": true }),
        json!({ "exp": [NOW + 60] }),
        json!({ "exp": u64::MAX }),
        json!({ "exp": i64::MAX }),
        json!({ "exp": 253_402_300_800_u64 }),
        json!({ "nbf": "now" }),
        json!({ "nbf": -1 }),
        json!({ "sub": 7 }),
        json!({ "sub": ["root"] }),
        json!({ "iss": [ISSUER] }),
        json!({ "aud": 1 }),
        json!({ "aud": [AUDIENCE, 1] }),
        json!({ "aud": { "a": AUDIENCE } }),
    ] {
        let token = of_claims(changes.clone());
        assert_eq!(verify(&token), Err(No::UnreadableClaims), "{changes}");
    }
}

#[test]
fn claims_that_do_not_hold_are_refused() {
    assert_refused([
        ("no expiry", without("exp"), No::NoExpiry),
        ("an expiry of null", of_claims(json!({ "exp": null })), No::NoExpiry),
        ("expired", of_claims(json!({ "exp": NOW - 30 })), No::Expired),
        ("expired by a fraction", of_claims(json!({ "exp": NOW as f64 - 30.5 })), No::Expired),
        ("expired in 1970", of_claims(json!({ "exp": 0 })), No::Expired),
        ("not yet valid", of_claims(json!({ "nbf": NOW + 31 })), No::NotYetValid),
        ("never valid", of_claims(json!({ "nbf": u64::MAX })), No::NotYetValid),
        ("no issuer", without("iss"), No::WrongIssuer),
        ("another issuer", of_claims(json!({ "iss": "https://evil.example" })), No::WrongIssuer),
        ("an issuer's prefix", of_claims(json!({ "iss": &ISSUER[..20] })), No::WrongIssuer),
        ("a longer issuer", of_claims(json!({ "iss": format!("{ISSUER}/") })), No::WrongIssuer),
        ("no audience", without("aud"), No::WrongAudience),
        ("an audience of null", of_claims(json!({ "aud": null })), No::WrongAudience),
        ("another audience", of_claims(json!({ "aud": "api" })), No::WrongAudience),
        ("other letters", of_claims(json!({ "aud": ["Waypost"] })), No::WrongAudience),
        ("audiences in one text", of_claims(json!({ "aud": "api waypost" })), No::WrongAudience),
        ("no audiences", of_claims(json!({ "aud": [] })), No::WrongAudience),
        ("no subject", without("sub"), No::NoSubject),
        ("a subject of null", of_claims(json!({ "sub": null })), No::NoSubject),
        ("an empty subject", of_claims(json!({ "sub": "" })), No::NoSubject),
    ]);
    for subject in ["ann\u{e9}", "\u{0430}nn", "a\nb", "a\0", "\u{7f}", "\u{200b}", "a\u{202e}b"] {
        assert_refused([("subject", of_claims(json!({ "sub": subject })), No::UnusableSubject)]);
    }
}

#[test]
fn clock_before_1970_refuses_every_token() {
    let before = at(0) - std::time::Duration::from_secs(1);
    let refused = verifier().verify(&of_header(json!({})), before);
    assert_eq!(refused, Err(No::Expired));
}
