//! Enforces the deadline that the client sent in `grpc-timeout`: when it passes, the call ends.

use std::{
    future::{Future, pending},
    time::Duration,
};

use http::{HeaderMap, Response};
use tokio::{select, time::sleep};
use tonic::{Status, TimeoutExpired, body::Body};

/// Returns the timeout in the headers; `None` if it is missing or malformed.
pub(super) fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    // The protocol allows eight digits.
    let number = (number.len() <= 8).then(|| number.parse::<u64>().ok())??;
    Some(match unit {
        "H" => Duration::from_secs(number * 60 * 60),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Returns the response, or `CANCELLED` once the timeout has passed.
pub(super) async fn within(
    timeout: Option<Duration>,
    response: impl Future<Output = Response<Body>>,
) -> Response<Body> {
    let late = async {
        match timeout {
            Some(timeout) => sleep(timeout).await,
            None => pending().await,
        }
    };
    select! {
        biased;
        response = response => response,
        () = late => Status::cancelled(TimeoutExpired(()).to_string()).into_http(),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(value: &str) -> Option<Duration> {
        let value = HeaderValue::from_str(value).unwrap();
        grpc_timeout(&HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), value)]))
    }

    #[test]
    fn timeout_is_a_number_and_a_unit() {
        for (value, nanos) in [
            ("2H", 7_200_000_000_000),
            ("3M", 180_000_000_000),
            ("15S", 15_000_000_000),
            ("99999999m", 99_999_999_000_000),
            ("7u", 7_000),
            ("0n", 0),
        ] {
            assert_eq!(read(value), Some(Duration::from_nanos(nanos)), "{value}");
        }
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
    }

    #[test]
    fn malformed_timeouts_are_ignored() {
        for value in ["", "S", "1", "1s", "-1S", "+", "1.5S", "123456789S", "1S ", "é", "1é"] {
            assert_eq!(read(value), None, "{value:?}");
        }
        assert_eq!(grpc_timeout(&HeaderMap::new()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn call_ends_at_its_deadline() {
        let late = within(Some(Duration::from_secs(1)), pending()).await;
        assert_eq!(late.headers()[Status::GRPC_STATUS], "1");
        let response = async {
            sleep(Duration::from_secs(1)).await;
            Status::ok("").into_http()
        };
        let response = within(Some(Duration::from_secs(2)), response).await;
        assert_eq!(response.headers()[Status::GRPC_STATUS], "0");
    }
}
