//! Callers by their tokens: static ones, and those of issuers.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use serde_json::{Value, json};

use super::directory;
use crate::{
    policy::{Authentication, NewToken, Policy, Unauthenticated, Via},
    testing::SigningKey,
};

/// The time of all tests, in seconds since 1970: 2027-01-15T08:00:00Z.
const NOW: u64 = 1_800_000_000;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn headers(values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(AUTHORIZATION, HeaderValue::from_str(value).expect("a value"));
    }
    headers
}

fn policy(revoked: &str, tokens: &[(&str, &NewToken, &str)]) -> Policy {
    let mut text = format!("revoked = {revoked}\n");
    text += "[issuer.k8s]\nissuer = 'https://k8s'\naudience = 'waypost'\nkeys = 'keys.json'\n";
    for (name, token, rest) in tokens {
        let sha256 = token.sha256();
        text += &format!("[[token]]\nname = '{name}'\nsha256 = '{sha256}'\n{rest}\n");
    }
    Policy::parse(&text, directory().path()).expect("a policy")
}

fn jwt(changes: &Value) -> String {
    let mut claims = json!({
        "iss": "https://k8s", "aud": "waypost", "sub": "system:serviceaccount:shop:orders",
        "exp": NOW + 60, "jti": "id-1",
    });
    for (name, value) in changes.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    SigningKey::ed25519().token(&json!({ "alg": "EdDSA", "kid": "a" }), &claims)
}

fn authenticate(policy: &Policy, token: &str) -> Result<Authentication, Unauthenticated> {
    let found = policy.authenticate(&headers(&[&format!("Bearer {token}")]), at(NOW));
    found.map(|found| found.expect("a token was given"))
}

#[test]
fn new_token_is_found_by_its_digest() {
    let (ci, other) = (NewToken::generate().expect("bytes"), NewToken::generate().expect("bytes"));
    assert_ne!(ci.text(), other.text());
    assert_eq!(ci.text().len(), "waypost_".len() + 43);
    assert_eq!(format!("{ci:?}"), "NewToken");
    let policy = policy("[]", &[("ci", &ci, "")]);
    let found = authenticate(&policy, ci.text()).expect("the token");
    assert_eq!((found.principal.as_str(), found.via), ("token/ci", Via::Token));
    assert_eq!((found.credential.as_deref(), found.ends), (Some("ci"), None));
    assert_eq!(authenticate(&policy, other.text()), Err(Unauthenticated::TokenInvalid));
    let debug = format!("{policy:?}");
    assert!(!debug.contains(ci.text()) && !debug.contains(&ci.sha256()), "{debug}");
}

#[test]
fn authorization_is_one_bearer_token() {
    let token = NewToken::generate().expect("bytes");
    let (policy, text) = (policy("[]", &[("ci", &token, "")]), token.text());
    let authenticate = |values: &[&str]| policy.authenticate(&headers(values), at(NOW));
    assert_eq!(authenticate(&[]), Ok(None));
    for value in [format!("Bearer {text}"), format!("bearer {text}"), format!("BEARER  {text}")] {
        assert!(authenticate(&[&value]).is_ok_and(|found| found.is_some()), "{value}");
    }
    for value in [
        String::new(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        text.to_owned(),
        format!("Basic {text}"),
        format!("Bearer{text}"),
        format!("Bearer\t{text}"),
        format!("Bearer {text} "),
        format!("Bearer {text}, Bearer {text}"),
        format!("Bearer {}", text.to_uppercase()),
        format!("Bearer {}", &text[..50]),
        format!("Bearer waypost_{}", "a".repeat(9000)),
        "Bearer waypost_".to_owned(),
    ] {
        assert_eq!(authenticate(&[&value]), Err(Unauthenticated::TokenInvalid), "{value}");
    }
    let mut obsolete = HeaderMap::new();
    obsolete.insert(AUTHORIZATION, HeaderValue::from_bytes(b"Bearer \xff").expect("a value"));
    assert_eq!(policy.authenticate(&obsolete, at(NOW)), Err(Unauthenticated::TokenInvalid));
    let value = format!("Bearer {text}");
    assert_eq!(authenticate(&[&value, &value]), Err(Unauthenticated::GivenTwice));
    assert_eq!(authenticate(&[&value, "Basic x"]), Err(Unauthenticated::GivenTwice));
}

#[test]
fn static_token_ends_without_leeway() {
    let token = NewToken::generate().expect("bytes");
    let policy = policy("[]", &[("ci", &token, "expires = 2027-01-15T08:00:00Z")]);
    let before = at(NOW) - Duration::from_millis(1);
    let found = policy.authenticate_token(token.text(), before).expect("valid");
    assert_eq!(found.ends, Some(at(NOW)));
    let found = policy.authenticate_token(token.text(), at(NOW));
    assert_eq!(found, Err(Unauthenticated::CredentialsExpired));
}

#[test]
fn revoked_principal_is_refused_by_any_token() {
    let token = NewToken::generate().expect("bytes");
    let policy = policy("['token/ci', 'k8s/gone']", &[("ci", &token, "")]);
    assert_eq!(authenticate(&policy, token.text()), Err(Unauthenticated::Revoked));
    let gone = jwt(&json!({ "sub": "gone" }));
    assert_eq!(authenticate(&policy, &gone), Err(Unauthenticated::Revoked));
    assert!(authenticate(&policy, &jwt(&json!({}))).is_ok());
}

#[test]
fn signed_token_gives_issuer_and_subject() {
    let policy = policy("[]", &[]);
    let found = authenticate(&policy, &jwt(&json!({}))).expect("valid");
    assert_eq!(found.principal.as_str(), "k8s/system:serviceaccount:shop:orders");
    assert_eq!((found.via, found.credential.as_deref()), (Via::Jwt, Some("id-1")));
    // The leeway is part of the end.
    assert_eq!(found.ends, Some(at(NOW + 90)));
    let token = jwt(&json!({ "exp": NOW - 29 }));
    assert!(authenticate(&policy, &token).is_ok_and(|found| found.ends == Some(at(NOW + 1))));
    let token = jwt(&json!({ "exp": NOW - 30 }));
    assert_eq!(authenticate(&policy, &token), Err(Unauthenticated::CredentialsExpired));
    for changes in [
        json!({ "iss": "https://other" }),
        json!({ "aud": "other" }),
        json!({ "sub": null }),
        json!({ "sub": "" }),
        json!({ "sub": "\u{e4}" }),
        json!({ "sub": "a\nb" }),
        json!({ "sub": "a".repeat(2045) }),
        json!({ "exp": null }),
    ] {
        let found = authenticate(&policy, &jwt(&changes));
        assert_eq!(found, Err(Unauthenticated::TokenInvalid), "{changes}");
    }
    for id in [json!("a\nb"), json!("a".repeat(300)), json!(null)] {
        let found = authenticate(&policy, &jwt(&json!({ "jti": id }))).expect("valid");
        assert_eq!(found.credential, None);
    }
    for text in ["a.b.c", "x", "..", "eyJhbGciOiJub25lIn0.e30."] {
        assert_eq!(authenticate(&policy, text), Err(Unauthenticated::TokenInvalid), "{text}");
    }
}

#[test]
fn reasons_are_those_of_the_protocol() {
    for (refusal, reason) in [
        (Unauthenticated::NoCredentials, "NO_CREDENTIALS"),
        (Unauthenticated::CertificateNamesNobody, "CERTIFICATE_NAMES_NOBODY"),
        (Unauthenticated::CertificateNotTrusted, "CERTIFICATE_NOT_TRUSTED"),
        (Unauthenticated::TokenInvalid, "TOKEN_INVALID"),
        (Unauthenticated::CredentialsExpired, "CREDENTIALS_EXPIRED"),
        (Unauthenticated::Revoked, "REVOKED"),
        (Unauthenticated::GivenTwice, "GIVEN_TWICE"),
    ] {
        assert_eq!(refusal.reason(), reason);
    }
}
