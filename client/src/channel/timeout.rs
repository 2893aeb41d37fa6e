//! A call's timeout, as it travels in its head. What is no timeout is never taken for one.

use std::time::Duration;

use http::HeaderMap;

/// The call's timeout, as the gRPC protocol writes it: up to 8 digits and a unit.
pub(super) fn timeout(headers: &HeaderMap) -> Option<Duration> {
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
#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", value.parse().unwrap());
        timeout(&headers)
    }

    #[test]
    fn timeouts_are_read_as_the_protocol_writes_them() {
        assert_eq!(parsed("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parsed("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(parsed("0n"), Some(Duration::ZERO));
        assert_eq!(timeout(&HeaderMap::new()), None);
    }

    #[test]
    fn what_is_no_timeout_is_left_to_the_server() {
        for value in ["", "m", "5", "-5m", "+5m", "999999999S", "5 S", "5d", "1.5S"] {
            assert_eq!(parsed(value), None, "{value:?}");
        }
    }
}
