//! Path prefixes. Segments are compared decoded; paths stay as they are, and dots are never
//! resolved. Pure.

use std::{borrow::Cow, fmt, str::FromStr};

use percent_encoding::percent_decode_str;

/// A prefix of paths, of whole segments: `/v1/orders` is a prefix of itself, of `/v1/orders/` and
/// of `/v1/orders/7`, not of `/v1/orders-old`. A final `/` is dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PathPrefix {
    /// Empty, or `/` before each segment.
    text: String,
}

/// The reason why a text is not a [`PathPrefix`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathPrefixError {
    /// The text does not begin with `/`.
    #[error("must begin with '/'")]
    Relative,
    /// A segment is empty.
    #[error("must not have '//' in it")]
    EmptySegment,
    /// A segment is `.` or `..`.
    #[error("must not have a segment '.' or '..'")]
    Dots,
    /// A character must be percent-encoded in paths, or is.
    #[error(
        "must be of letters, digits and '-._~!$&\\'()*+,;=:@' between its '/': what is percent-encoded \
         can't be matched"
    )]
    Character,
}

impl PathPrefix {
    /// Returns the prefix without a final slash: empty for `/`.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns true for `/`, the prefix of all paths.
    pub(super) fn is_root(&self) -> bool {
        self.text.is_empty()
    }

    /// Returns the segments.
    pub(super) fn segments(&self) -> impl Iterator<Item = &str> {
        self.text.split('/').skip(1)
    }

    /// Returns the rest of a path with this prefix: empty, or `/` and more.
    pub(super) fn rest<'a>(&self, path: &'a str) -> &'a str {
        // By segments: encoded ones have more bytes than the prefix.
        let end = path.match_indices('/').nth(self.segments().count());
        end.map_or("", |(end, _)| &path[end..])
    }

    /// Returns the prefix, followed by the rest of a path.
    pub(super) fn before<'a>(&'a self, rest: &'a str) -> Cow<'a, str> {
        match (&*self.text, rest) {
            ("", "") => Cow::Borrowed("/"),
            ("", rest) => Cow::Borrowed(rest),
            (prefix, "") => Cow::Borrowed(prefix),
            (prefix, rest) => Cow::Owned([prefix, rest].concat()),
        }
    }
}

impl FromStr for PathPrefix {
    type Err = PathPrefixError;

    fn from_str(text: &str) -> Result<Self, PathPrefixError> {
        if !text.starts_with('/') {
            return Err(PathPrefixError::Relative);
        }
        let text = text.strip_suffix('/').unwrap_or(text);
        for segment in text.split('/').skip(1) {
            match segment {
                "" => return Err(PathPrefixError::EmptySegment),
                "." | ".." => return Err(PathPrefixError::Dots),
                segment if !segment.bytes().all(is_plain) => {
                    return Err(PathPrefixError::Character);
                }
                _ => {}
            }
        }
        Ok(Self { text: text.to_owned() })
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.before(""))
    }
}

/// Decodes a segment, as nearly all instances do: `%61` is `a` (RFC 3986, 6.2.2.2), and `%40` is
/// `@`.
pub(super) fn decoded(segment: &str) -> Cow<'_, str> {
    percent_decode_str(segment).decode_utf8_lossy()
}

/// Returns a path with its encoded slashes decoded, and without empty segments.
pub(super) fn normalized(path: &str) -> String {
    let decoded = path.replace("%2F", "/").replace("%2f", "/");
    let mut normalized = String::with_capacity(decoded.len());
    for segment in decoded.split('/').filter(|segment| !segment.is_empty()) {
        normalized.push('/');
        normalized.push_str(segment);
    }
    if normalized.is_empty() { "/".to_owned() } else { normalized }
}

/// Returns a segment without its parameters, which some instances ignore (RFC 3986, 3.3).
pub(super) fn without_parameters(segment: &str) -> &str {
    segment.split(';').next().unwrap_or_default()
}

/// Returns true for a `pchar` of RFC 3986 (section 3.3), except `%`.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> PathPrefix {
        text.parse().expect("a prefix")
    }

    #[test]
    fn a_final_slash_is_ignored() {
        assert_eq!(prefix("/v1/orders/"), prefix("/v1/orders"));
        assert_eq!(prefix("/"), PathPrefix::default());
        assert_eq!(prefix("/").to_string(), "/");
        assert_eq!(prefix("/").segments().count(), 0);
        assert_eq!(prefix("/a/b").segments().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn other_text_is_not_a_prefix() {
        for (text, error) in [
            ("", PathPrefixError::Relative),
            ("orders", PathPrefixError::Relative),
            ("//", PathPrefixError::EmptySegment),
            ("/a//b", PathPrefixError::EmptySegment),
            ("//a", PathPrefixError::EmptySegment),
            ("/a/../b", PathPrefixError::Dots),
            ("/..", PathPrefixError::Dots),
            ("/./a", PathPrefixError::Dots),
            ("/a%20b", PathPrefixError::Character),
            ("/a b", PathPrefixError::Character),
            ("/a?b", PathPrefixError::Character),
            ("/a#b", PathPrefixError::Character),
            ("/a\\b", PathPrefixError::Character),
            ("/ü", PathPrefixError::Character),
            ("/a\n", PathPrefixError::Character),
        ] {
            assert_eq!(text.parse::<PathPrefix>(), Err(error), "{text}");
        }
        assert!("/a..b/...".parse::<PathPrefix>().is_ok(), "these are plain names");
    }

    #[test]
    fn a_normalized_path_has_no_encoded_slashes_and_no_empty_segments() {
        for (path, expected) in [
            ("/", "/"),
            ("//", "/"),
            ("/%2F", "/"),
            ("/a%2Fb%2fc", "/a/b/c"),
            ("//a///b//", "/a/b"),
            ("/https%3A%2F%2Fa", "/https%3A/a"),
            ("/a%20b", "/a%20b"),
        ] {
            assert_eq!(normalized(path), expected, "{path}");
        }
    }

    #[test]
    fn a_prefix_is_stripped_and_prepended() {
        assert_eq!(prefix("/v1").rest("/v1/orders"), "/orders");
        assert_eq!(prefix("/v1").rest("/v1"), "");
        assert_eq!(prefix("/").rest("/v1"), "/v1");
        assert_eq!(prefix("/v1/orders").rest("/v1/%6frders/%37"), "/%37");
        assert_eq!(prefix("/in").before("/orders"), "/in/orders");
        assert_eq!(prefix("/in").before(""), "/in");
        assert_eq!(prefix("/").before("/orders"), "/orders");
        assert_eq!(prefix("/").before(""), "/");
    }
}
