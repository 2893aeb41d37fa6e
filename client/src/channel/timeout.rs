//! The timeout of a call, and its header. Never accepts an invalid timeout.

use std::time::Duration;

use http::{Extensions, HeaderMap, HeaderValue};

/// The time that the caller of a request waits for the head of the response: an extension of the
/// request.
///
/// - For plain HTTP, only the time of the instances counts. It runs from the end of the upload,
///   over all attempts. During the upload it starts again with each piece that the instance takes,
///   and stops while the caller sends nothing: a slow caller does not time out, an instance that
///   stops reading does. The request's body has to limit the caller's own pauses.
/// - For gRPC, it is a deadline from the start of the call. If the call has a `grpc-timeout` as
///   well, the shorter time counts.
///
/// ```
/// use std::time::Duration;
/// use waypost_client::CallTimeout;
///
/// let mut request = http::Request::new(tonic::body::Body::empty());
/// request.extensions_mut().insert(CallTimeout(Duration::from_secs(2)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallTimeout(pub Duration);

impl CallTimeout {
    /// Takes the timeout out of the extensions.
    pub(super) fn take(extensions: &mut Extensions) -> Option<Duration> {
        let Self(timeout) = extensions.remove::<Self>()?;
        if extensions.is_empty() {
            // Empty extensions would still be copied with each attempt.
            *extensions = Extensions::new();
        }
        Some(timeout)
    }
}

/// The scope of a call's timeout.
#[derive(Clone, Copy, Debug)]
pub enum Timeout {
    /// The whole call until the head of the response: a deadline.
    WholeCall(Duration),
    /// The same without the time in which the caller sends.
    Instance(Duration),
}

/// Parses a timeout of the gRPC protocol: up to 8 digits and a unit.
pub(super) fn parse(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}
/// Formats the remaining time in the finest unit that fits 8 digits; rounded down, but never 0.
pub(super) fn format(left: Duration) -> HeaderValue {
    let counts = [
        (left.as_nanos(), 'n'),
        (left.as_micros(), 'u'),
        (left.as_millis(), 'm'),
        (left.as_secs().into(), 'S'),
        ((left.as_secs() / 60).into(), 'M'),
    ];
    let fine = counts.into_iter().find(|(count, _)| *count <= COUNT_MAX);
    let hours = (u128::from(left.as_secs() / 3600).min(COUNT_MAX), 'H');
    let (count, unit) = fine.unwrap_or(hours);
    let text = format!("{}{unit}", count.max(1));
    HeaderValue::try_from(text).expect("digits and a letter")
}

/// The greatest number of 8 digits.
const COUNT_MAX: u128 = 99_999_999;

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", value.parse().unwrap());
        parse(&headers)
    }

    #[test]
    fn timeouts_of_the_protocol_are_parsed() {
        assert_eq!(parsed("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parsed("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(parsed("0n"), Some(Duration::ZERO));
        assert_eq!(parse(&HeaderMap::new()), None);
    }

    #[test]
    fn an_invalid_timeout_is_left_to_the_server() {
        for value in ["", "m", "5", "-5m", "+5m", "999999999S", "5 S", "5d", "1.5S"] {
            assert_eq!(parsed(value), None, "{value:?}");
        }
    }

    #[test]
    fn the_finest_unit_that_fits_is_written() {
        for (left, expected) in [
            (Duration::ZERO, "1n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_999), "100000u"),
            (Duration::from_millis(250), "250000u"),
            (Duration::from_micros(100_000_999), "100000m"),
            (Duration::from_millis(100_000_999), "100000S"),
            (Duration::from_secs(100_000_019), "1666666M"),
            (Duration::from_secs(99_999_999 * 60 + 60), "1666666H"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(format(left), expected, "{left:?}");
        }
    }

    #[test]
    fn a_written_timeout_is_read_as_no_more_and_hardly_less() {
        let mut left = Duration::from_nanos(1);
        while left < Duration::from_secs(99_999_999 * 3600) {
            let read = parsed(format(left).to_str().unwrap()).unwrap();
            assert!(read <= left && left - read <= left / 100_000, "{left:?} became {read:?}");
            left = left * 13 / 10 + Duration::from_nanos(1);
        }
    }
}
