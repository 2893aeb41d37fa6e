//! Headers with credentials: where they are found, and which are rejected.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};

use super::{authenticator, bearer, claims, headers, hex, identify, load, now, token};
use crate::{AuthMethod, Unauthorized};

/// Asserts the reason why a request with these headers is rejected.
#[track_caller]
fn assert_rejected(all: &[(&'static str, &str)], reason: Unauthorized) {
    assert_eq!(identify(&headers(all.iter().copied())), Err(reason), "{all:?}");
}

#[test]
fn authorization_without_a_bearer_token_is_rejected() {
    let good = token(&claims());
    let basic = format!("Basic {good}");
    for value in [basic.as_str(), &good, "", "Bearer\tx"] {
        assert_rejected(&[("authorization", value)], Unauthorized::NotBearer);
    }
    for value in ["Bearer", "Bearer  "] {
        assert_rejected(&[("authorization", value)], Unauthorized::MalformedToken);
    }
    let not_ascii = "Bearer \u{e9}.\u{e9}.";
    assert_rejected(&[("authorization", not_ascii)], Unauthorized::UnreadableHeader);
    let mut bytes = HeaderMap::new();
    bytes.insert(AUTHORIZATION, HeaderValue::from_bytes(b"Bearer \xff\xfe").expect("a value"));
    assert_eq!(identify(&bytes), Err(Unauthorized::MalformedToken));
}

#[test]
fn credentials_that_are_given_twice_are_rejected() {
    let bearer = format!("Bearer {}", token(&claims()));
    let authorization = ("authorization", bearer.as_str());
    let key = ("x-api-key", "ci-key");
    for twice in [[authorization; 2], [authorization, ("authorization", "Basic x")], [key, key]] {
        assert_rejected(&twice, Unauthorized::GivenTwice);
    }
    for key in [key, ("x-api-key", "")] {
        assert_rejected(&[authorization, key], Unauthorized::TwoCredentials);
    }
}

#[test]
fn unknown_api_key_is_rejected() {
    let digest = hex(b"ci-key");
    for key in ["ci-kez", "", "ci key", "ci-key ", "CI-KEY", "ci", &digest] {
        assert_rejected(&[("x-api-key", key)], Unauthorized::UnknownApiKey);
    }
    assert_rejected(&[("x-api-key", "old-key")], Unauthorized::ApiKeyExpired);
    let huge = "k".repeat((8 << 10) + 1);
    assert_rejected(&[("x-api-key", &huge)], Unauthorized::TooLong);
}

#[test]
fn api_key_is_accepted_until_it_expires() {
    let identity = identify(&headers([("x-api-key", "ci-key")])).expect("it holds");
    let identity = identity.expect("it is one");
    assert_eq!((identity.subject.as_str(), identity.method), ("ci", AuthMethod::ApiKey));
    assert!(identity.scopes.iter().eq(["orders:read"]));
    let new = headers([("x-api-key", "new-key")]);
    assert!(identify(&new).is_ok());
    let later = now() + Duration::from_secs(1);
    let refused = authenticator().identify(&new, later);
    assert_eq!(refused, Err(Unauthorized::ApiKeyExpired));
}

#[test]
fn request_without_credentials_has_no_identity() {
    assert_eq!(identify(&HeaderMap::new()), Ok(None));
    assert_eq!(identify(&headers([("cookie", "token=x")])), Ok(None));
}

#[test]
fn credentials_of_an_unconfigured_method_are_ignored() {
    let token = token(&claims());
    let both = with_api_key(&token);
    let by_key = load("[auth.api_keys]\nfile = 'api-keys.toml'\n").expect("a configuration");
    let identity = by_key.identify(&both, now()).expect("it holds").expect("it is one");
    assert_eq!(identity.method, AuthMethod::ApiKey);
    let mut passed_on = both.clone();
    by_key.replace_credentials(&mut passed_on, Some(&identity));
    assert!(passed_on.contains_key(AUTHORIZATION), "it is not the gateway's");
    let by_token =
        load("[auth.jwt]\nkeys = [{ kid = 'h', alg = 'HS256', secret_file = 'h.secret' }]\n");
    let by_token = by_token.expect("a configuration");
    let identity = by_token.identify(&both, now()).expect("it holds").expect("it is one");
    assert_eq!(identity.method, AuthMethod::Jwt, "nor are issuer and audience asked");
}

fn with_api_key(token: &str) -> HeaderMap {
    let mut headers = bearer(token);
    headers.insert("x-api-key", HeaderValue::from_static("ci-key"));
    headers
}
