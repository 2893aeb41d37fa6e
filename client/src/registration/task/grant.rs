//! The lease in the response to a registration.

use std::{ops::RangeInclusive, time::Duration};

use crate::{
    proto::{Instance, RegisterResponse},
    registration::{lease::Grant, spec::Registration},
};

/// The heartbeat interval if the response has none.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(5);

/// The shortest and the longest valid heartbeat interval. Shorter ones would flood the registry;
/// the longest TTL is 5 min.
const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(300);

/// Returns the granted lease and the instance. If the response has no instance, it is the one that
/// was sent.
pub(super) fn grant(response: RegisterResponse, sent: &Registration) -> (Grant, Instance) {
    let instance = response.instance.filter(|instance| !instance.id.is_empty());
    let instance = instance.unwrap_or_else(|| sent.instance.clone());
    // Negative durations are invalid, and some overflow when they are converted.
    let interval = response.heartbeat_interval.filter(|interval| interval.seconds >= 0);
    let interval = interval.filter(|interval| interval.nanos >= 0);
    let interval = interval.and_then(|interval| Duration::try_from(interval).ok());
    let grant = Grant {
        lease_id: response.lease_id,
        heartbeat_interval: interval
            .filter(|interval| INTERVALS.contains(interval))
            .unwrap_or(INTERVAL_DEFAULT),
        origin: (
            response.cursor.map(|cursor| cursor.history_id).unwrap_or_default(),
            instance.created_revision,
        ),
    };
    (grant, instance)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(seconds: i64, nanos: i32) -> Duration {
        let response = RegisterResponse {
            heartbeat_interval: Some(prost_types::Duration { seconds, nanos }),
            ..RegisterResponse::default()
        };
        grant(response, &Registration::new("orders", "h", 1)).0.heartbeat_interval
    }

    #[test]
    fn an_invalid_interval_is_replaced_by_the_default() {
        assert_eq!(granted(7, 0), Duration::from_secs(7));
        for (seconds, nanos) in [(0, 0), (0, 1), (-1, 0), (301, 0), (i64::MAX, 0), (i64::MIN, -1)] {
            assert_eq!(granted(seconds, nanos), INTERVAL_DEFAULT, "{seconds}.{nanos}");
        }
    }

    #[test]
    fn a_response_without_instance_keeps_the_one_sent() {
        let sent = Registration::new("orders", "h", 1).id("a");
        assert_eq!(grant(RegisterResponse::default(), &sent).1, sent.instance);
    }
}
