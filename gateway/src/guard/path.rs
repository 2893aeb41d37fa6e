//! Ambiguous paths: one party decodes before it splits segments, another after; one reads a
//! backslash as a slash, cuts parameters off, or resolves dots. Pure.
//! Never refuses a path that is merely unusual.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::{PathFeatures, Refused};

/// The most rounds of decoding. Each copies the path once.
const ROUNDS_MAX: usize = 3;

/// Checks a path, and everything that it decodes to, however often. Returns the features that its
/// route must allow. A slash that is encoded more than once is always refused: [routes](
/// crate::routes::RouteTable::is_ambiguous) are compared for two readings only.
pub(super) fn check(path: &str) -> Result<PathFeatures, Refused> {
    if !path.is_ascii() {
        return Err(Refused::bad("the path has bytes that must be percent-encoded"));
    }
    let empty_segments = check_segments(path)?;
    let mut features = PathFeatures { empty_segments, ..PathFeatures::default() };
    if !path.contains('%') {
        return Ok(features);
    }
    check_encoding(path)?;
    let mut slashes = count_slashes(path);
    let mut encoded = Cow::Borrowed(path);
    for round in 0..=ROUNDS_MAX {
        let bytes: Vec<u8> = percent_decode_str(&encoded).collect();
        if bytes.len() == encoded.len() {
            return Ok(features);
        }
        // Overlong forms of a slash or a dot are not UTF-8.
        let decoded =
            String::from_utf8(bytes).map_err(|_| Refused::bad("the path is not UTF-8"))?;
        let decoded_slashes = count_slashes(&decoded);
        if decoded_slashes != slashes {
            if round > 0 {
                return Err(Refused::bad("the path has an encoded slash that is encoded again"));
            }
            check_parameters(path)?;
            features.encoded_slashes = true;
            slashes = decoded_slashes;
        }
        // Empty segments are those of the path, or between its encoded slashes.
        let _allowed_by_the_route = check_segments(&decoded)?;
        encoded = Cow::Owned(decoded);
    }
    Err(Refused::bad("the path is encoded too often"))
}

/// Checks that two hexadecimal digits follow each `%`.
fn check_encoding(path: &str) -> Result<(), Refused> {
    let sound = path.split('%').skip(1).all(|rest| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    if sound { Ok(()) } else { Err(Refused::bad("the path is not percent-encoded")) }
}

/// Checks that parameters have no encoded slash. Routes are found without the parameters of
/// segments: `/a;x=%2Fb` would be read as `/a` here, and as `/a/b` by an instance.
fn check_parameters(path: &str) -> Result<(), Refused> {
    for segment in path.split('/') {
        let segment = segment.to_ascii_lowercase();
        let before = segment.find("%2f").map_or("", |slash| &segment[..slash]);
        if before.contains(';') || before.contains("%3b") {
            return Err(Refused::bad("the path has an encoded slash in parameters"));
        }
    }
    Ok(())
}

fn count_slashes(path: &str) -> usize {
    path.bytes().filter(|byte| *byte == b'/').count()
}

/// Checks the segments. Returns true where one is empty, apart from the last.
fn check_segments(path: &str) -> Result<bool, Refused> {
    let mut is_any_empty = false;
    if path.chars().any(char::is_control) {
        return Err(Refused::bad("the path has a control character"));
    }
    if path.contains('\\') {
        return Err(Refused::bad("the path has a backslash"));
    }
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        // Servers in Java cut parameters off before they resolve dots.
        let name = segment.split(';').next().unwrap_or_default();
        let last = segments.peek().is_none();
        if segment.is_empty() {
            is_any_empty |= !last;
        } else if name.is_empty() {
            return Err(Refused::bad("the path has an empty segment with parameters"));
        }
        // Windows drops dots and spaces at the end of a name.
        if name.contains('.') && name.bytes().all(|byte| matches!(byte, b'.' | b' ')) {
            return Err(Refused::bad("the path has a dot segment"));
        }
    }
    Ok(is_any_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(paths: &[&str], reason: &str) {
        for path in paths {
            let found = judge(path).expect_err(path);
            assert!(found.reason.contains(reason), "{path}: {}", found.reason);
        }
    }

    /// Checks a path for a route that allows no feature.
    fn judge(path: &str) -> Result<(), Refused> {
        check(path)?.check_allowed(PathFeatures::default())
    }

    /// Returns true for encoded slashes, and for empty segments.
    fn features(path: &str) -> (bool, bool) {
        let found = check(path).expect(path);
        (found.encoded_slashes, found.empty_segments)
    }

    #[test]
    fn features_that_a_route_can_allow_are_returned() {
        for path in
            ["/a%2fb", "/a%2Fb/c", "/%2F/jobs", "/https%3A%2F%2Fa.b%2Fc", "/a%2F", "/%2f%2F"]
        {
            assert_eq!(features(path), (true, false), "{path}");
        }
        for path in ["//", "//a", "/a//", "/a///b", "/https://a.b/c", "/a//%41"] {
            assert_eq!(features(path), (false, true), "{path}");
        }
        assert_eq!(features("/a//b%2fc"), (true, true));
        assert_eq!(features("/a/b%20c/"), (false, false));
        assert_eq!(features("/a%2Fb;v=1"), (true, false), "parameters behind a slash");
    }

    #[test]
    fn no_route_can_allow_segments_hidden_behind_encoded_slashes() {
        for (path, reason) in [
            ("/a%2F..%2Fb", "dot segment"),
            ("/a%2f%2e%2e%2fb", "dot segment"),
            ("/a%2F%2e", "dot segment"),
            ("/%2F../b", "dot segment"),
            ("/a%2F..;x%2Fb", "dot segment"),
            ("/a//../b", "dot segment"),
            ("/a%2F%252e%252e", "dot segment"),
            ("/a%252Fb", "encoded again"),
            ("/a%2Fb%252Fc", "encoded again"),
            ("/a%2Fb%25252Fc", "encoded again"),
            ("/a%2Fb%25%32%66c", "encoded again"),
            ("/a%2Fb%5cc", "backslash"),
            ("/a%2F%00", "control"),
            ("/a%2F%c0%af", "UTF-8"),
            ("/a;x=%2Fb", "in parameters"),
            ("/a%3Bx=%2Fb", "in parameters"),
            ("/c/a;x%2fb/d", "in parameters"),
            ("/a%2F;x/b", "with parameters"),
            ("/a//;x", "with parameters"),
        ] {
            let found = check(path).expect_err(path);
            assert!(found.reason.contains(reason), "{path}: {}", found.reason);
        }
    }

    #[test]
    fn unusual_paths_pass() {
        for path in [
            "/",
            "/orders",
            "/orders/",
            "/orders/7",
            "/orders/a.b",
            "/orders/.hidden",
            "/orders/..hidden",
            "/orders/hidden..",
            "/orders/a..b",
            "/orders/a%2epdf",
            "/orders/%2ehidden",
            "/orders/M%C3%BCnchen",
            "/orders/%E6%9D%B1%E4%BA%AC",
            "/orders/%F0%9F%9A%80",
            "/orders/a%20b",
            "/orders/a+b",
            "/orders/~user",
            "/orders/%7Euser",
            "/orders/100%25",
            "/orders/100%25%20sure",
            "/orders/c%23",
            "/orders/what%3f",
            "/orders;v=1/7;color=red",
            "/orders/a%3bb",
            "/orders/(1)!*'$&,=:@-_",
            "/orders/%41",
            "/orders/%2541",
            "/orders/[a]|{b}",
        ] {
            assert_eq!(judge(path), Ok(()), "{path}");
        }
    }

    #[test]
    fn dot_segments_are_refused_however_they_are_written() {
        refused(
            &[
                "/.",
                "/..",
                "/orders/..",
                "/orders/.",
                "/orders/./7",
                "/orders/../admin",
                "/orders/%2e%2e/admin",
                "/orders/%2E%2E/admin",
                "/orders/.%2e/admin",
                "/orders/%2e./admin",
                "/orders/%2e",
                "/orders/%2e%2e",
                "/orders/..;/admin",
                "/orders/..;x=1/admin",
                "/orders/.;/admin",
                "/orders/%2e%2e;/admin",
                "/orders/..%3b/admin",
                "/orders/..%20/admin",
                "/orders/.../admin",
            ],
            "dot segment",
        );
    }

    #[test]
    fn paths_that_are_dangerous_after_another_decoding_are_refused() {
        refused(
            &[
                "/orders/%252e%252e/admin",
                "/orders/%252e./admin",
                "/orders/%25%32%65%25%32%65/admin",
                "/orders/%25%32e",
                "/orders/%25252e%25252e/admin",
                "/orders/..%253b/admin",
            ],
            "dot segment",
        );
        refused(&["/a%252fb", "/a%252Fb", "/a%25252fb", "/a%25%32%66b"], "encoded slash");
        refused(&["/a%255cb"], "backslash");
        refused(&["/a%2500b", "/a%250d%250ab"], "control");
        refused(&["/a%25c0%25af"], "UTF-8");
        refused(&["/a%252525252e", "/a%25252525252525252541"], "too often");
    }

    #[test]
    fn encoded_slashes_are_refused() {
        refused(&["/orders/a%2fb", "/orders/a%2Fb", "/orders%2f7", "/%2f", "/a%2f"], "slash");
    }

    #[test]
    fn backslashes_are_refused() {
        refused(
            &["/orders\\7", "/orders/..\\admin", "/orders/a%5cb", "/orders/a%5Cb"],
            "backslash",
        );
    }

    #[test]
    fn empty_segments_are_refused() {
        refused(
            &["//", "//orders", "/orders//7", "/orders//", "/;/orders", "/orders/;x/7", "/a/;x"],
            "empty segment",
        );
    }

    #[test]
    fn control_characters_are_refused() {
        refused(
            &["/a%00", "/a%0a", "/a%0d%0aX:1", "/a%09b", "/a%1f", "/a%7f", "/a%c2%85", "/a\u{1}"],
            "control",
        );
    }

    #[test]
    fn malformed_percent_encoding_is_refused() {
        refused(
            &["/%", "/a%", "/a%2", "/a%zz", "/a%2g", "/a%%", "/a%u002e", "/a% 20", "/%-1"],
            "percent",
        );
    }

    #[test]
    fn paths_that_are_not_utf_8_are_refused() {
        refused(
            &[
                "/%c0%af",
                "/%c0%ae%c0%ae/admin",
                "/%e0%80%af",
                "/%f0%80%80%af",
                "/%c1%9c",
                "/M%fcnchen",
                "/%ed%a0%80",
                "/%c3",
            ],
            "UTF-8",
        );
        refused(&["/München"], "encoded");
    }

    #[test]
    fn no_random_path_passes_and_decodes_to_a_dangerous_one() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let pieces = ["%", "25", "2", "e", "E", "f", "/", ".", ";", "5c", "a", "%2e", "%2f", "32"];
        for _ in 0..50_000 {
            let count = random.usize(1..12);
            let soup: String = (0..count).map(|_| pieces[random.usize(..pieces.len())]).collect();
            let path = format!("/{soup}");
            if judge(&path).is_err() {
                continue;
            }
            let mut decoded = path.clone();
            for _ in 0..12 {
                let segments: Vec<_> = decoded.split('/').collect();
                let dots = segments.iter().any(|segment| {
                    let name = segment.split(';').next().unwrap();
                    name == "." || name == ".."
                });
                assert!(!dots && !decoded.contains('\\'), "{path} becomes {decoded}");
                assert_eq!(segments.len(), path.split('/').count(), "{path} becomes {decoded}");
                let bytes: Vec<u8> = percent_decode_str(&decoded).collect();
                decoded = String::from_utf8(bytes).unwrap();
            }
        }
    }
}
