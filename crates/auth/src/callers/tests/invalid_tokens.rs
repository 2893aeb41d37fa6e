//! Tokens that are rejected, each with its reason.

use std::time::{Duration, SystemTime};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{
    NOW, SECRET, authenticator, bearer, claims, now, signed, token, token_of, with, without,
};
use crate::{
    Unauthorized,
    testing::{RSA_PUBLIC, SigningKey},
};

/// The header of a token by the key `h`.
const HEADER: &str = "{\"alg\":\"HS256\",\"kid\":\"h\"}";

/// A case: a name for it, the token, the reason why it is rejected.
type Case = (&'static str, String, Unauthorized);

/// A valid token's header, claims and signature.
fn parts() -> [String; 3] {
    let token = token(&claims());
    let mut parts = token.split('.').map(str::to_owned);
    [(); 3].map(|()| parts.next().expect("three parts"))
}

/// A token of these texts by the key `h`.
fn of_texts(header: &str, claims: &str) -> String {
    SigningKey::secret(SECRET).token_of_texts("HS256", header, claims)
}

/// A token with valid claims but for these.
fn of_claims(changes: Value) -> String {
    token(&with(claims(), changes))
}

/// A token whose header differs in this.
fn of_header(changes: Value) -> String {
    token_of(changes, &claims())
}

fn all_cases() -> Vec<Case> {
    [
        malformed(),
        bad_headers(),
        bad_algorithms(),
        bad_signatures(),
        unreadable_claims(),
        bad_claims(),
    ]
    .concat()
}

fn malformed() -> Vec<Case> {
    use Unauthorized as No;
    let [header, payload, signature] = parts();
    let good = parts().join(".");
    vec![
        ("empty", String::new(), No::MalformedToken),
        ("no dots", good.replace('.', ""), No::MalformedToken),
        ("one dot", format!("{header}.{payload}"), No::MalformedToken),
        ("four parts", format!("{good}.{signature}"), No::MalformedToken),
        ("a JWE", format!("{header}..{payload}.{payload}.{signature}"), No::MalformedToken),
        ("dots alone", "..".to_owned(), No::UnreadableHeader),
        ("huge", format!("{good}{}", "A".repeat(8 << 10)), No::TooLong),
        ("huge claims", of_claims(json!({ "more": "x".repeat(8 << 10) })), No::TooLong),
        ("trailing garbage", format!("{good} x"), No::BadSignature),
        ("a second one", format!("{good},{good}"), No::MalformedToken),
    ]
}

fn bad_headers() -> Vec<Case> {
    use Unauthorized as No;
    let [header, payload, signature] = parts();
    let good = parts().join(".");
    let text = claims().to_string();
    vec![
        ("no base64", format!("!{good}"), No::UnreadableHeader),
        ("padding", format!("{header}=.{payload}.{signature}"), No::UnreadableHeader),
        ("no JSON", of_texts("alg=HS256", &text), No::UnreadableHeader),
        ("a list", of_texts("[\"HS256\",\"h\"]", &text), No::UnreadableHeader),
        ("cut", of_texts("{\"alg\":\"HS256\"", &text), No::UnreadableHeader),
        ("more after it", of_texts(&format!("{HEADER}{{}}"), &text), No::UnreadableHeader),
        ("no alg", of_texts("{\"kid\":\"h\"}", &text), No::UnreadableHeader),
        ("alg of another type", of_header(json!({ "alg": 256 })), No::UnreadableHeader),
        ("kid of another type", of_header(json!({ "kid": 1 })), No::UnreadableHeader),
        (
            "alg twice",
            of_texts("{\"alg\":\"none\",\"alg\":\"HS256\"}", &text),
            No::UnreadableHeader,
        ),
        ("crit", of_header(json!({ "crit": ["exp"] })), No::Unsupported),
        ("crit of null", of_header(json!({ "crit": null })), No::Unsupported),
        ("b64", of_header(json!({ "b64": false })), No::Unsupported),
        ("nested", of_header(json!({ "cty": "JWT" })), No::Unsupported),
        ("encrypted", of_header(json!({ "enc": "A128GCM" })), No::Unsupported),
        ("compressed", of_header(json!({ "zip": "DEF" })), No::Unsupported),
    ]
}

fn bad_algorithms() -> Vec<Case> {
    use Unauthorized as No;
    let [_, payload, _] = parts();
    let none = |name: &str| {
        let header = json!({ "alg": name, "typ": "JWT" }).to_string();
        format!("{}.{payload}.", URL_SAFE_NO_PAD.encode(header))
    };
    let rsa = SigningKey::rsa();
    let rs =
        |alg: &str, kid: &str| signed(&json!({ "alg": alg, "kid": kid }), &claims(), "RS256", &rsa);
    let es_header = json!({ "alg": "ES256", "kid": "r" });
    let es = signed(&es_header, &claims(), "ES256", &SigningKey::p256());
    vec![
        ("none", none("none"), No::AlgorithmNotAllowed),
        ("None", none("None"), No::AlgorithmNotAllowed),
        ("nOnE", none("nOnE"), No::AlgorithmNotAllowed),
        ("empty", none(""), No::AlgorithmNotAllowed),
        ("none, signed", of_header(json!({ "alg": "none" })), No::AlgorithmNotAllowed),
        ("unknown", of_header(json!({ "alg": "ES256K" })), No::AlgorithmNotAllowed),
        ("lower case", of_header(json!({ "alg": "hs256" })), No::AlgorithmNotAllowed),
        ("another one of the type", of_header(json!({ "alg": "HS512" })), No::AlgorithmNotAllowed),
        ("RS512 by a key for RS256", rs("RS512", "r"), No::AlgorithmNotAllowed),
        ("RS256 by a key for PS256", rs("RS256", "ps"), No::AlgorithmNotAllowed),
        ("public key as secret", by_public_key(&json!("r")), No::AlgorithmNotAllowed),
        ("public key as secret, no kid", by_public_key(&Value::Null), No::BadSignature),
        ("public key as secret, secret's kid", by_public_key(&json!("h")), No::BadSignature),
        ("one for another type of key", es, No::AlgorithmNotAllowed),
        ("kid of another key", of_header(json!({ "kid": "oct" })), No::AlgorithmNotAllowed),
    ]
}

/// A token that is signed with a public key, as if that were a secret.
fn by_public_key(kid: &Value) -> String {
    let secret = SigningKey::secret(RSA_PUBLIC.as_bytes());
    signed(&json!({ "alg": "HS256", "kid": kid }), &claims(), "HS256", &secret)
}

fn bad_signatures() -> Vec<Case> {
    use Unauthorized as No;
    let [header, payload, signature] = parts();
    let message = format!("{header}.{payload}");
    let header_of_r = json!({ "alg": "RS256", "kid": "r" });
    let other_rsa = SigningKey::other_rsa();
    let by_other_rsa = signed(&header_of_r, &claims(), "RS256", &other_rsa);
    let own_key = SigningKey::secret(&[9; 32]);
    let own_jwk = json!({ "kty": "oct", "k": URL_SAFE_NO_PAD.encode([9; 32]) });
    let embedded = json!({ "alg": "HS256", "jwk": own_jwk });
    let embedded = signed(&embedded, &claims(), "HS256", &own_key);
    let root = URL_SAFE_NO_PAD.encode(with(claims(), json!({ "sub": "root" })).to_string());
    let truncated = &signature[..signature.len() / 2];
    vec![
        ("unknown kid", of_header(json!({ "kid": "x" })), No::UnknownKey),
        ("empty kid", of_header(json!({ "kid": "" })), No::UnknownKey),
        ("kid that is a path", of_header(json!({ "kid": "../../dev/null" })), No::UnknownKey),
        ("by another key", by_other_rsa, No::BadSignature),
        ("by an embedded key", embedded, No::BadSignature),
        ("no signature", format!("{message}."), No::BadSignature),
        ("truncated", format!("{message}.{truncated}"), No::BadSignature),
        ("longer", format!("{message}.{signature}AAAA"), No::BadSignature),
        ("no base64", format!("{message}.***"), No::BadSignature),
        ("other claims", format!("{header}.{root}.{signature}"), No::BadSignature),
    ]
}

fn unreadable_claims() -> Vec<Case> {
    use Unauthorized as No;
    let twice = claims().to_string().replacen('{', "{\"sub\":\"root\",", 1);
    let texts = [
        ("no JSON", "sub=ann"),
        ("a list", "[\"ann\"]"),
        ("a text", "\"ann\""),
        ("a subject twice", &twice),
    ];
    let texts = texts.map(|(what, text)| (what, of_texts(HEADER, text), No::UnreadableClaims));
    let changes = [
        ("a subject of another type", json!({ "sub": 7 })),
        ("an expiry that is a text", json!({ "exp": "9999999999" })),
        ("an expiry before 1970", json!({ "exp": -1 })),
        ("an expiry beyond all time", json!({ "exp": 1e300 })),
        ("issuers", json!({ "iss": ["https://id.example.com"] })),
        ("an audience of another type", json!({ "aud": 1 })),
        ("scopes of another type", json!({ "scope": { "a": 1 } })),
    ];
    let changes = changes.map(|(what, changes)| (what, of_claims(changes), No::UnreadableClaims));
    texts.into_iter().chain(changes).collect()
}

fn bad_claims() -> Vec<Case> {
    use Unauthorized as No;
    let lacking = |name| token(&without(claims(), name));
    vec![
        ("no subject", lacking("sub"), No::NoSubject),
        ("a subject of null", of_claims(json!({ "sub": null })), No::NoSubject),
        ("an empty subject", of_claims(json!({ "sub": "" })), No::NoSubject),
        ("no expiry", lacking("exp"), No::NoExpiry),
        ("an expiry of null", of_claims(json!({ "exp": null })), No::NoExpiry),
        ("expired", of_claims(json!({ "exp": NOW - 3600 })), No::Expired),
        ("expired with its leeway", of_claims(json!({ "exp": NOW - 30 })), No::Expired),
        ("expired in 1970", of_claims(json!({ "exp": 0 })), No::Expired),
        ("not yet valid", of_claims(json!({ "nbf": NOW + 31 })), No::NotYetValid),
        ("never valid", of_claims(json!({ "nbf": u64::MAX })), No::NotYetValid),
        ("no issuer", lacking("iss"), No::WrongIssuer),
        ("another issuer", of_claims(json!({ "iss": "https://evil.example" })), No::WrongIssuer),
        ("an issuer's prefix", of_claims(json!({ "iss": "https://id.example" })), No::WrongIssuer),
        ("no audience", lacking("aud"), No::WrongAudience),
        ("another audience", of_claims(json!({ "aud": "web" })), No::WrongAudience),
        ("other audiences", of_claims(json!({ "aud": ["web", "API"] })), No::WrongAudience),
        ("an empty list of audiences", of_claims(json!({ "aud": [] })), No::WrongAudience),
    ]
}

#[test]
fn invalid_token_is_rejected_with_its_reason() {
    let authenticator = authenticator();
    for (what, token, reason) in all_cases() {
        assert_eq!(authenticator.identify(&bearer(&token), now()), Err(reason), "{what}: {token}");
    }
}

#[test]
fn clock_before_1970_rejects_every_token() {
    let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    let refused = authenticator().identify(&bearer(&token(&claims())), before);
    assert_eq!(refused, Err(Unauthorized::Expired));
}

#[test]
fn reasons_never_contain_the_credentials() {
    for (_, token, reason) in all_cases() {
        let shown = format!("{reason} {reason:?}");
        for part in token.split(['.', ' ', ',']).filter(|part| part.len() > 3) {
            assert!(!shown.contains(part), "{shown}");
        }
        let header = reason.www_authenticate();
        let header = header.to_str().expect("ASCII");
        let (start, description) =
            header.rsplit_once("error_description=\"").expect("it is described");
        assert_eq!(start, "Bearer error=\"invalid_token\", ");
        assert!(!description.strip_suffix('"').expect("quotes").contains(['"', '\\']));
    }
    let refused = Unauthorized::TwoCredentials.www_authenticate();
    assert!(refused.to_str().expect("ASCII").starts_with("Bearer error=\"invalid_request\""));
}
