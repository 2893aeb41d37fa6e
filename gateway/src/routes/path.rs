//! Prefixes of paths, by whole segments. A segment is known however it is encoded; paths themselves
//! stay as they are, and no dots are resolved.

use std::{borrow::Cow, fmt, str::FromStr};

use percent_encoding::percent_decode_str;

/// The begin of a path: some of its segments. `/v1/orders` is the begin of itself, of `/v1/orders/`
/// and of `/v1/orders/7`, not of `/v1/orders-old`. A `/` at the end is left away.
///
/// ```
/// use waypost_gateway::routes::PathPrefix;
///
/// let prefix: PathPrefix = "/v1/orders/".parse()?;
/// assert_eq!(prefix.to_string(), "/v1/orders");
/// assert!("v1/../orders".parse::<PathPrefix>().is_err());
/// # Ok::<(), waypost_gateway::routes::PathError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathPrefix {
    /// Empty, or `/` and a segment, again and again.
    text: String,
}

/// Why text is no [`PathPrefix`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin where paths do.
    #[error("must begin with '/'")]
    Relative,
    /// It has an empty segment.
    #[error("must not have '//' in it")]
    EmptySegment,
    /// It has a segment that leads elsewhere.
    #[error("must not have a segment '.' or '..'")]
    Dots,
    /// It has a character that paths have percent-encoded, or is percent-encoded.
    #[error(
        "must be of letters, digits and '-._~!$&\\'()*+,;=:@' between its '/': what is percent-encoded \
         can't be matched"
    )]
    Character,
}

impl PathPrefix {
    /// It without a slash at its end: empty for `/`.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns true for `/`, with which all paths begin.
    pub(super) fn is_root(&self) -> bool {
        self.text.is_empty()
    }

    /// Its segments.
    pub(super) fn segments(&self) -> impl Iterator<Item = &str> {
        self.text.split('/').skip(1)
    }

    /// What follows it in a path that begins with it: nothing, or `/` and more.
    pub(super) fn rest<'a>(&self, path: &'a str) -> &'a str {
        // By segments: their bytes may be more than its own.
        let end = path.match_indices('/').nth(self.segments().count());
        end.map_or("", |(end, _)| &path[end..])
    }

    /// It, followed by the rest of a path.
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
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        if !text.starts_with('/') {
            return Err(PathError::Relative);
        }
        let text = text.strip_suffix('/').unwrap_or(text);
        for segment in text.split('/').skip(1) {
            match segment {
                "" => return Err(PathError::EmptySegment),
                "." | ".." => return Err(PathError::Dots),
                segment if !segment.bytes().all(stands_for_itself) => {
                    return Err(PathError::Character);
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

/// What a segment of a request's path says to those who decode it, as nearly all instances do: `%61` is
/// an `a` (RFC 3986, 6.2.2.2), and `%40` an `@` to them.
pub(super) fn decoded(segment: &str) -> Cow<'_, str> {
    percent_decode_str(segment).decode_utf8_lossy()
}

/// A path with its encoded slashes decoded and its empty segments left out.
pub(super) fn normalized(path: &str) -> String {
    let decoded = path.replace("%2F", "/").replace("%2f", "/");
    let mut normalized = String::with_capacity(decoded.len());
    for segment in decoded.split('/').filter(|segment| !segment.is_empty()) {
        normalized.push('/');
        normalized.push_str(segment);
    }
    if normalized.is_empty() { "/".to_owned() } else { normalized }
}

/// A segment without its parameters, which some instances do not look at (RFC 3986, 3.3).
pub(super) fn without_parameters(segment: &str) -> &str {
    segment.split(';').next().unwrap_or_default()
}

/// Whether it is a `pchar` of RFC 3986 (section 3.3) that is not percent-encoded.
fn stands_for_itself(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> PathPrefix {
        text.parse().expect("a prefix")
    }

    #[test]
    fn a_slash_at_the_end_says_nothing() {
        assert_eq!(prefix("/v1/orders/"), prefix("/v1/orders"));
        assert_eq!(prefix("/"), PathPrefix::default());
        assert_eq!(prefix("/").to_string(), "/");
        assert_eq!(prefix("/").segments().count(), 0);
        assert_eq!(prefix("/a/b").segments().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn what_is_no_prefix_is_told_apart() {
        for (text, error) in [
            ("", PathError::Relative),
            ("orders", PathError::Relative),
            ("//", PathError::EmptySegment),
            ("/a//b", PathError::EmptySegment),
            ("//a", PathError::EmptySegment),
            ("/a/../b", PathError::Dots),
            ("/..", PathError::Dots),
            ("/./a", PathError::Dots),
            ("/a%20b", PathError::Character),
            ("/a b", PathError::Character),
            ("/a?b", PathError::Character),
            ("/a#b", PathError::Character),
            ("/a\\b", PathError::Character),
            ("/ü", PathError::Character),
            ("/a\n", PathError::Character),
        ] {
            assert_eq!(text.parse::<PathPrefix>(), Err(error), "{text}");
        }
        assert!("/a..b/...".parse::<PathPrefix>().is_ok(), "these lead nowhere");
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
    fn a_prefix_is_taken_from_a_path_and_put_before_one() {
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
