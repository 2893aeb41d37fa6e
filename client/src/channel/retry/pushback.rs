//! The response header of an instance that did not serve a call, about retries. An invalid value
//! forbids them.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};

/// The instance's instruction about a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushback {
    /// There is no instruction.
    Unspecified,
    /// A retry is allowed after this time.
    Wait(Duration),
    /// A retry is forbidden.
    Never,
}

impl Pushback {
    /// Reads `grpc-retry-pushback-ms` (gRPC's proposal A6), or else `retry-after` in seconds (RFC
    /// 9110, 10.2.3; a date counts as invalid, as it depends on the wall clock).
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

/// Rejects a sign: `parse` alone accepts a `+`.
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
    fn waits_have_their_units() {
        let ms = |value| of("grpc-retry-pushback-ms", value);
        assert_eq!(ms("250"), Pushback::Wait(Duration::from_millis(250)));
        assert_eq!(ms("0"), Pushback::Wait(Duration::ZERO));
        assert_eq!(of("retry-after", "3"), Pushback::Wait(Duration::from_secs(3)));
        assert_eq!(Pushback::from_headers(&HeaderMap::new()), Pushback::Unspecified);
    }

    #[test]
    fn an_invalid_wait_forbids_a_retry() {
        for value in ["-1", "", "soon", "+5", "1.5", "5 ", "99999999999999999999", "é"] {
            assert_eq!(of("grpc-retry-pushback-ms", value), Pushback::Never, "{value:?}");
            assert_eq!(of("retry-after", value), Pushback::Never, "{value:?}");
        }
        assert_eq!(of("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT"), Pushback::Never);
    }

    #[test]
    fn the_header_of_grpc_takes_precedence() {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", HeaderValue::from_static("3"));
        headers.insert("grpc-retry-pushback-ms", HeaderValue::from_static("-1"));
        assert_eq!(Pushback::from_headers(&headers), Pushback::Never);
    }
}
