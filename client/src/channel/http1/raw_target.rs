//! Request targets with bytes that a URI can't hold.

use std::sync::Arc;

/// The exact target of a request whose URI only holds an encoded form of it: many clients send `"`,
/// `<` and `>`, which have to be percent-encoded, as they are. An extension of a request through an
/// [`HttpChannel`](crate::HttpChannel). Over HTTP/2, whose `:path` can't hold such bytes, the URI
/// counts.
///
/// ```
/// use waypost_client::RawTarget;
///
/// let mut request = http::Request::get("/find?q=%22a%22").body(tonic::body::Body::empty())?;
/// if let Some(target) = RawTarget::new("/find?q=\"a\"") {
///     request.extensions_mut().insert(target);
/// }
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTarget(Arc<str>);

impl RawTarget {
    /// Creates a target. `None` if it does not begin with `/`, or holds a space or a control
    /// character: it would end the request line, or be ambiguous.
    ///
    /// ```
    /// use waypost_client::RawTarget;
    ///
    /// assert!(RawTarget::new("/a?b=<c>").is_some());
    /// assert!(RawTarget::new("/a\r\n").is_none());
    /// ```
    #[must_use]
    pub fn new(target: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_graphic() || !byte.is_ascii();
        let is_whole = target.starts_with('/') && target.bytes().all(is_plain);
        is_whole.then(|| Self(target.into()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_printable_and_begins_with_a_slash() {
        for target in ["", "a", "*", "http://a/", "/a b", "/a\tb", "/a\r\nx: y", "/\u{7f}", "/\0"] {
            assert_eq!(RawTarget::new(target), None, "{target:?}");
        }
    }
}
