//! What instances are told of who calls. They believe it, so nothing that a caller sends may be taken for
//! it, and nothing by which a caller is known may reach them.

use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::{Authenticator, Identity, Method, authenticator::Authorization};

const SUBJECT: HeaderName = HeaderName::from_static("x-waypost-subject");
const SCOPES: HeaderName = HeaderName::from_static("x-waypost-scopes");
const METHOD: HeaderName = HeaderName::from_static("x-waypost-auth");

/// What is encoded beside all that is not ASCII. Spaces: headers lose them at their ends, and they stand
/// between scopes. `%`: so that two texts never become one.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

impl Authenticator {
    /// Puts who calls into the headers of a request that goes to an instance, and takes out what callers
    /// have put there themselves, their API key, and, unless it is to be forwarded, the token that has
    /// told who they are.
    ///
    /// Instances get `x-waypost-subject`, `x-waypost-scopes` (with spaces between; missing where there are
    /// none) and `x-waypost-auth` (`jwt` or `api-key`), or none of them where nobody is known. What is not
    /// ASCII, spaces and `%` are percent-encoded in them.
    ///
    /// To be called for every request, known or not: only then can instances rely on it. And after the headers
    /// that `Connection` names have been taken out, as callers could name these.
    ///
    /// ```
    /// use http::{HeaderMap, HeaderValue};
    /// use waypost_auth::{Authenticator, Identity, Method};
    ///
    /// # fn example(authenticator: &Authenticator) {
    /// let mut headers = HeaderMap::new();
    /// headers.insert("x_waypost-subject", HeaderValue::from_static("root"));
    /// let identity =
    ///     Identity { subject: "ann".into(), scopes: Default::default(), method: Method::Jwt };
    /// authenticator.pass_on(&mut headers, Some(&identity));
    /// assert_eq!(headers.len(), 2);
    /// assert_eq!(headers["x-waypost-subject"], "ann");
    /// # }
    /// ```
    pub fn pass_on(&self, headers: &mut HeaderMap, identity: Option<&Identity>) {
        remove_forged(headers);
        if let Some(keys) = &self.api_keys {
            headers.remove(keys.header());
        }
        let Some(identity) = identity else { return };
        if identity.method == Method::Jwt && self.authorization == Authorization::Removed {
            headers.remove(AUTHORIZATION);
        }
        let scopes: Vec<_> = identity.scopes.iter().map(|scope| encoded(scope)).collect();
        set(headers, SUBJECT, &encoded(&identity.subject));
        set(headers, SCOPES, &scopes.join(" "));
        set(headers, METHOD, identity.method.as_str());
    }
}

/// Takes out of the headers of a request what only the gateway may say: to be called where no
/// [`Authenticator`] is, and for trailers, which some instances read like headers.
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
    // Seldom any, so that nothing is allocated.
    let forged: Vec<HeaderName> = headers.keys().filter(|name| is_ours(name)).cloned().collect();
    for name in forged {
        headers.remove(name);
    }
}

/// Whether it is, or some instance may take it for, a header of the gateway: CGI and its heirs know no
/// difference between `-` and `_`.
pub(super) fn is_ours(name: &HeaderName) -> bool {
    let alike = |ours: &HeaderName| {
        let (name, ours) = (name.as_str().bytes(), ours.as_str().bytes());
        name.len() == ours.len() && name.zip(ours).all(|(a, b)| a == b || (a, b) == (b'_', b'-'))
    };
    [SUBJECT, SCOPES, METHOD].iter().any(alike)
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// Nothing is told by leaving the header out.
fn set(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if text.is_empty() {
        return;
    }
    // All that it can't carry is encoded, so it always is one.
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}
