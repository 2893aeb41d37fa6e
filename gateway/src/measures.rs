//! What the gateway measures of its requests, told through the `metrics` facade.

use std::time::Duration;

use http::StatusCode;
use metrics::{counter, gauge, histogram};

use crate::access_log::Outcome;

/// A request was taken in.
pub(crate) fn began() {
    gauge!("waypost_gateway_requests_in_flight").increment(1.0);
}

/// Its answer has been sent, or given up.
pub(crate) fn ended(outcome: &Outcome, status: StatusCode, took: Duration) {
    gauge!("waypost_gateway_requests_in_flight").decrement(1.0);
    // What strangers ask for is not told apart: each name would be another series.
    let known = outcome.service.as_ref().filter(|_| outcome.instance.is_some());
    let service = known.map_or_else(String::new, ToString::to_string);
    let class = class(status);
    counter!("waypost_gateway_requests_total", "service" => service.clone(), "status" => class)
        .increment(1);
    histogram!("waypost_gateway_request_seconds", "service" => service.clone()).record(took);
    if let Some(instance) = &outcome.instance {
        let instance = instance.to_string();
        counter!(
            "waypost_gateway_instance_requests_total",
            "service" => service.clone(), "instance" => instance.clone(), "status" => class
        )
        .increment(1);
        if let Some(took) = outcome.upstream_time {
            histogram!(
                "waypost_gateway_instance_seconds", "service" => service, "instance" => instance
            )
            .record(took);
        }
    }
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}
