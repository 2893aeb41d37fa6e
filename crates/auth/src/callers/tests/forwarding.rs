//! Headers that instances receive: those of the identity, and no credentials.

use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};

use super::{CONFIG, authenticator, bearer, claims, headers, load, now, token};
use crate::{AuthMethod, Identity};

#[test]
fn instance_receives_the_identity_and_no_credentials() {
    let token = token(&claims());
    let mut passed_on = bearer(&token);
    for name in [
        "x-waypost-subject",
        "x_waypost_subject",
        "x-waypost_subject",
        "x_waypost-scopes",
        "x-waypost-scopes",
        "x_waypost_auth",
        "x-waypost-auth",
    ] {
        passed_on.append(name, HeaderValue::from_static("root"));
        passed_on.append(name, HeaderValue::from_static("admin"));
    }
    passed_on.insert("x-waypost-subjects", HeaderValue::from_static("mine"));
    let nobody = passed_on.clone();
    let authenticator = authenticator();
    let identity = authenticator.identify(&passed_on, now()).expect("it holds");
    authenticator.replace_credentials(&mut passed_on, identity.as_ref());
    assert_eq!(
        passed_on,
        headers([
            ("x-waypost-subjects", "mine"),
            ("x-waypost-subject", "ann"),
            ("x-waypost-scopes", "orders:read orders:write"),
            ("x-waypost-auth", "jwt"),
        ])
    );
    let mut passed_on = nobody;
    authenticator.replace_credentials(&mut passed_on, None);
    let left: Vec<_> = passed_on.keys().map(HeaderName::as_str).collect();
    assert_eq!(left, ["authorization", "x-waypost-subjects"]);
}

#[test]
fn api_key_never_reaches_an_instance() {
    let authenticator = authenticator();
    let mut passed_on = headers([("x-api-key", "old-key"), ("accept", "*/*")]);
    authenticator.replace_credentials(&mut passed_on, None);
    assert_eq!(passed_on, headers([("accept", "*/*")]));
    let mut passed_on = headers([("x-api-key", "new-key")]);
    let identity = authenticator.identify(&passed_on, now()).expect("it holds");
    authenticator.replace_credentials(&mut passed_on, identity.as_ref());
    let told = headers([("x-waypost-subject", "new"), ("x-waypost-auth", "api-key")]);
    assert_eq!(passed_on, told, "no scopes, no header");
}

#[test]
fn token_is_forwarded_where_configured() {
    let authenticator = load(&format!("[auth]\nforward_authorization = true\n{CONFIG}"));
    let authenticator = authenticator.expect("a configuration");
    let mut passed_on = bearer(&token(&claims()));
    let identity = authenticator.identify(&passed_on, now()).expect("it holds");
    authenticator.replace_credentials(&mut passed_on, identity.as_ref());
    assert!(passed_on.contains_key(AUTHORIZATION));
    assert_eq!(passed_on["x-waypost-subject"], "ann");
}

#[test]
fn identity_headers_are_percent_encoded_without_collisions() {
    let authenticator = authenticator();
    let mut seen = std::collections::HashSet::new();
    for (subject, told) in [
        ("auth0|7", "auth0|7"),
        ("j\u{f6}rg", "j%C3%B6rg"),
        (" root", "%20root"),
        ("root\r\nx-admin: 1", "root%0D%0Ax-admin:%201"),
        ("a%20b", "a%2520b"),
        ("a b", "a%20b"),
        ("\0\u{7f}", "%00%7F"),
    ] {
        let scopes = ["a b".to_owned(), "c".to_owned()].into();
        let identity = Identity { subject: subject.into(), scopes, method: AuthMethod::Jwt };
        let mut headers = HeaderMap::new();
        authenticator.replace_credentials(&mut headers, Some(&identity));
        assert_eq!(headers["x-waypost-subject"], told);
        assert_eq!(headers["x-waypost-scopes"], "a%20b c");
        assert!(seen.insert(told));
    }
}
