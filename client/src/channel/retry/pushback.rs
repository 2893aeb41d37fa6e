//! What an instance that did not serve a call says about sending it again. What can't be understood
//! means: don't.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};

/// Whether, and when, a call may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushback {
    /// Nothing was said.
    Unspecified,
    /// Not sooner than after this time.
    Wait(Duration),
    /// Not at all.
    Never,
}

impl Pushback {
    /// What the head of an answer says: `grpc-retry-pushback-ms` (gRPC's proposal A6), or else
    /// `retry-after` in seconds (RFC 9110, 10.2.3; a date, which goes by the wall clock, is not
    /// understood).
    pub(crate) fn from_headers(headers: &HeaderMap) -> Self {
        let parse = |name, unit: fn(u64) -> Duration| {
            headers.get(name).map(|value: &HeaderValue| {
                let count = value.to_str().ok().filter(|text| is_number(text));
                let count = count.and_then(|text| text.parse().ok());
                count.map_or(Self::Never, |count| Self::Wait(unit(count)))
            })
        };
        parse(&PUSHBACK, Duration::from_millis)
            .or_else(|| parse(&header::RETRY_AFTER, Duration::from_secs))
            .unwrap_or(Self::Unspecified)
    }
}

static PUSHBACK: header::HeaderName = header::HeaderName::from_static("grpc-retry-pushback-ms");

/// Without a sign: `parse` alone takes a `+`.
fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &'static str, value: &str) -> Pushback {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        Pushback::from_headers(&headers)
    }

    #[test]
    fn waits_are_read_in_their_units() {
        let ms = |value| of("grpc-retry-pushback-ms", value);
        assert_eq!(ms("250"), Pushback::Wait(Duration::from_millis(250)));
        assert_eq!(ms("0"), Pushback::Wait(Duration::ZERO));
        assert_eq!(of("retry-after", "3"), Pushback::Wait(Duration::from_secs(3)));
        assert_eq!(Pushback::from_headers(&HeaderMap::new()), Pushback::Unspecified);
    }

    #[test]
    fn what_is_no_wait_forbids_to_try_again() {
        for value in ["-1", "", "soon", "+5", "1.5", "5 ", "99999999999999999999", "é"] {
            assert_eq!(of("grpc-retry-pushback-ms", value), Pushback::Never, "{value:?}");
            assert_eq!(of("retry-after", value), Pushback::Never, "{value:?}");
        }
        assert_eq!(of("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT"), Pushback::Never);
    }

    #[test]
    fn grpcs_own_word_goes_first() {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", HeaderValue::from_static("3"));
        headers.insert("grpc-retry-pushback-ms", HeaderValue::from_static("-1"));
        assert_eq!(Pushback::from_headers(&headers), Pushback::Never);
    }
}
