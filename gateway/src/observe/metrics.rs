//! The metrics of requests, recorded through the `metrics` facade. The handles of a series are
//! cached: most requests look them up in a table, and allocate nothing.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use dashmap::DashMap;
use http::StatusCode;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::record::RequestOutcome;
use crate::clock;

/// The longest time that handles are cached: the recorder may have dropped an idle series
/// meanwhile.
const HANDLES_MAX_AGE: Duration = Duration::from_secs(60);
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The metrics of a gateway.
pub(crate) struct RequestMetrics {
    in_flight: Gauge,
    services: DashMap<Box<str>, Arc<ServiceSeries>>,
}

/// The series of a service.
struct ServiceSeries {
    created: Instant,
    requests: [Counter; CLASSES.len()],
    seconds: Histogram,
    instances: DashMap<Box<str>, Arc<InstanceSeries>>,
}

/// The series of an instance.
struct InstanceSeries {
    requests: [Counter; CLASSES.len()],
    seconds: Histogram,
}

impl RequestMetrics {
    /// Metrics for the recorder that is installed.
    pub(crate) fn new() -> Self {
        let in_flight = gauge!("waypost_gateway_requests_in_flight");
        Self { in_flight, services: DashMap::new() }
    }

    /// Counts a request that has arrived.
    pub(crate) fn started(&self) {
        self.in_flight.increment(1.0);
    }

    /// Counts a request whose response was sent or abandoned.
    pub(crate) fn finished(&self, outcome: &RequestOutcome, status: StatusCode, elapsed: Duration) {
        self.in_flight.decrement(1.0);
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        // Names that callers make up share one series.
        let known = outcome.service.as_ref().filter(|_| outcome.instance.is_some());
        let service = self.service(known.map_or("", |service| service.as_str()));
        service.requests[class].increment(1);
        service.seconds.record(elapsed);
        if let (Some(known), Some(instance)) = (known, &outcome.instance) {
            let instance = service.instance(known.as_str(), instance);
            instance.requests[class].increment(1);
            if let Some(time) = outcome.upstream_time {
                instance.seconds.record(time);
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the guard is held while an `Arc` is cloned")]
    fn service(&self, name: &str) -> Arc<ServiceSeries> {
        let now = clock::now();
        if let Some(service) = self.services.get(name)
            && now < service.created + HANDLES_MAX_AGE
        {
            return Arc::clone(&service);
        }
        let service = Arc::new(ServiceSeries::new(name, now));
        self.services.insert(name.into(), Arc::clone(&service));
        service
    }
}

impl fmt::Debug for RequestMetrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RequestMetrics")
    }
}

impl ServiceSeries {
    fn new(name: &str, now: Instant) -> Self {
        let name = name.to_owned();
        let requests = CLASSES.map(|class| {
            counter!("waypost_gateway_requests_total", "service" => name.clone(), "status" => class)
        });
        let seconds = histogram!("waypost_gateway_request_seconds", "service" => name);
        Self { created: now, requests, seconds, instances: DashMap::new() }
    }

    #[expect(clippy::disallowed_methods, reason = "the guard is held while an `Arc` is cloned")]
    fn instance(&self, service: &str, id: &str) -> Arc<InstanceSeries> {
        if let Some(instance) = self.instances.get(id) {
            return Arc::clone(&instance);
        }
        let instance = Arc::new(InstanceSeries::new(service, id));
        self.instances.insert(id.into(), Arc::clone(&instance));
        instance
    }
}

impl InstanceSeries {
    fn new(service: &str, id: &str) -> Self {
        let (service, id) = (service.to_owned(), id.to_owned());
        let requests = CLASSES.map(|class| {
            counter!(
                "waypost_gateway_instance_requests_total",
                "service" => service.clone(), "instance" => id.clone(), "status" => class
            )
        });
        let seconds =
            histogram!("waypost_gateway_instance_seconds", "service" => service, "instance" => id);
        Self { requests, seconds }
    }
}
