//! A call's timeout, as it travels in its head. What is no timeout is never taken for one.

use std::time::Duration;

use http::{Extensions, HeaderMap, HeaderValue};

/// How long the caller of a request waits for the head of its answer: goes with the request, as an
/// extension.
///
/// - A request of plain HTTP: the time of the instances alone counts. It runs from the end of the upload,
///   over all attempts. While the upload goes on it starts anew with each piece that the instance takes,
///   and stands still while the caller has sent nothing more: a caller on a slow line does not run out of
///   it, an instance that stops reading does. To bound the caller's own pauses is up to its body.
/// - A call of gRPC: a deadline, which runs from the beginning. Where the call says so itself as well
///   (`grpc-timeout`), the shorter time counts.
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
    /// The timeout, which is not needed there any more.
    pub(super) fn take(extensions: &mut Extensions) -> Option<Duration> {
        let Self(timeout) = extensions.remove::<Self>()?;
        if extensions.is_empty() {
            // Their place is copied with each attempt, even where it is empty.
            *extensions = Extensions::new();
        }
        Some(timeout)
    }
}

/// What a call's timeout covers.
#[derive(Clone, Copy, Debug)]
pub enum Timeout {
    /// All of the call until the head of its answer: a deadline.
    WholeCall(Duration),
    /// The same without the time in which the caller sends.
    Instance(Duration),
}

/// The call's timeout, as the gRPC protocol writes it: up to 8 digits and a unit.
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
/// What is left of a call's time, in the finest unit that 8 digits hold; rounded down, but never nothing.
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

/// 8 digits.
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
    fn timeouts_are_read_as_the_protocol_writes_them() {
        assert_eq!(parsed("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parsed("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(parsed("0n"), Some(Duration::ZERO));
        assert_eq!(parse(&HeaderMap::new()), None);
    }

    #[test]
    fn what_is_no_timeout_is_left_to_the_server() {
        for value in ["", "m", "5", "-5m", "+5m", "999999999S", "5 S", "5d", "1.5S"] {
            assert_eq!(parsed(value), None, "{value:?}");
        }
    }

    #[test]
    fn what_is_left_is_written_as_finely_as_it_can_be() {
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
    fn what_is_written_is_read_as_no_more_and_hardly_less() {
        let mut left = Duration::from_nanos(1);
        while left < Duration::from_secs(99_999_999 * 3600) {
            let read = parsed(format(left).to_str().unwrap()).unwrap();
            assert!(read <= left && left - read <= left / 100_000, "{left:?} became {read:?}");
            left = left * 13 / 10 + Duration::from_nanos(1);
        }
    }
}
