//! The headers that carry a caller's identity to instances.
//! Invariant: instances trust these headers, so no value that a caller sent remains in them.

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::identity::Identity;

const SUBJECT: HeaderName = HeaderName::from_static("x-waypost-subject");
const SCOPES: HeaderName = HeaderName::from_static("x-waypost-scopes");
const METHOD: HeaderName = HeaderName::from_static("x-waypost-auth");

/// The bytes to encode, beside all that are not ASCII. Spaces separate scopes, and are trimmed at
/// the ends of a value. `%` is encoded so that different texts stay different.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// Removes the identity headers that a caller sent. Needed for requests without an
/// [`Authenticator`](crate::Authenticator), and for trailers, which some instances merge into the
/// headers.
///
/// ```
/// use http::{HeaderMap, HeaderValue};
/// use waypost_auth::remove_forged;
///
/// let mut headers = HeaderMap::new();
/// headers.insert("x-waypost_auth", HeaderValue::from_static("jwt"));
/// remove_forged(&mut headers);
/// assert!(headers.is_empty());
/// ```
pub fn remove_forged(headers: &mut HeaderMap) {
    // Usually empty, so nothing is allocated.
    let forged: Vec<HeaderName> =
        headers.keys().filter(|name| is_identity_header(name)).cloned().collect();
    for name in forged {
        headers.remove(name);
    }
}

/// Writes an identity into headers without forged ones.
pub(crate) fn insert(headers: &mut HeaderMap, identity: &Identity) {
    let scopes: Vec<_> = identity.scopes.iter().map(|scope| encoded(scope)).collect();
    insert_text(headers, SUBJECT, &encoded(&identity.subject));
    insert_text(headers, SCOPES, &scopes.join(" "));
    insert_text(headers, METHOD, identity.method.as_str());
}

/// Returns whether an instance may read a header as one of the identity: CGI and its successors
/// do not distinguish `-` and `_`.
pub(crate) fn is_identity_header(name: &HeaderName) -> bool {
    let is_alike = |ours: &HeaderName| {
        let (name, ours) = (name.as_str().bytes(), ours.as_str().bytes());
        name.len() == ours.len() && name.zip(ours).all(|(a, b)| a == b || (a, b) == (b'_', b'-'))
    };
    [SUBJECT, SCOPES, METHOD].iter().any(is_alike)
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// Omits the header for an empty text.
fn insert_text(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if text.is_empty() {
        return;
    }
    // Never fails: the bytes that a value cannot have are encoded.
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}
