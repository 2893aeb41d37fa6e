//! Tokens of an issuer.

use std::time::{Duration, SystemTime};

use serde_json::json;
use waypost_auth::testing::SigningKey;

use super::place::ISSUER;

/// Returns a token of the issuer `k8s` that ends at a time.
pub(crate) fn jwt(subject: &str, end: SystemTime) -> String {
    jwt_by(&SigningKey::p256(), subject, end)
}

/// Returns a token of the issuer `k8s` with a signature of a key.
pub(crate) fn jwt_by(key: &SigningKey, subject: &str, end: SystemTime) -> String {
    let end = end.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    let claims = json!({ "iss": ISSUER, "aud": "waypost", "sub": subject, "exp": end });
    key.token(&json!({ "alg": "ES256", "kid": "a" }), &claims)
}

/// Returns a time from now.
pub(crate) fn after(seconds: u64) -> SystemTime {
    SystemTime::now() + Duration::from_secs(seconds)
}
