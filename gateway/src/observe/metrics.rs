//! What the gateway measures of its requests, told through the `metrics` facade. Where a series is kept is
//! looked up seldom: for most requests it costs a look at a table, and no allocation.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use dashmap::DashMap;
use http::StatusCode;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::access_log::Outcome;
use crate::clock;

/// After so long a series is looked up again: the recorder may have let go of it meanwhile.
const SERIES_MAX: Duration = Duration::from_secs(60);
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The series of a gateway.
pub(crate) struct Measures {
    in_flight: Gauge,
    services: DashMap<Box<str>, Arc<Service>>,
}

/// Those of a service.
struct Service {
    found: Instant,
    requests: [Counter; CLASSES.len()],
    seconds: Histogram,
    instances: DashMap<Box<str>, Arc<Instance>>,
}

/// Those of an instance.
struct Instance {
    requests: [Counter; CLASSES.len()],
    seconds: Histogram,
}

impl Measures {
    /// What a recorder gets that is installed by now.
    pub(crate) fn new() -> Self {
        let in_flight = gauge!("waypost_gateway_requests_in_flight");
        Self { in_flight, services: DashMap::new() }
    }

    /// A request was taken in.
    pub(crate) fn began(&self) {
        self.in_flight.increment(1.0);
    }

    /// Its answer has been sent, or given up.
    pub(crate) fn ended(&self, outcome: &Outcome, status: StatusCode, took: Duration) {
        self.in_flight.decrement(1.0);
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        // What strangers ask for is not told apart: each name would be another series.
        let known = outcome.service.as_ref().filter(|_| outcome.instance.is_some());
        let service = self.service(known.map_or("", |service| service.as_str()));
        service.requests[class].increment(1);
        service.seconds.record(took);
        if let (Some(known), Some(instance)) = (known, &outcome.instance) {
            let instance = service.instance(known.as_str(), instance);
            instance.requests[class].increment(1);
            if let Some(took) = outcome.upstream_time {
                instance.seconds.record(took);
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the guard is held while an `Arc` is cloned")]
    fn service(&self, name: &str) -> Arc<Service> {
        let now = clock::now();
        if let Some(service) = self.services.get(name)
            && now < service.found + SERIES_MAX
        {
            return Arc::clone(&service);
        }
        let service = Arc::new(Service::find(name, now));
        self.services.insert(name.into(), Arc::clone(&service));
        service
    }
}

impl fmt::Debug for Measures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Measures")
    }
}

impl Service {
    fn find(name: &str, now: Instant) -> Self {
        let name = name.to_owned();
        let requests = CLASSES.map(|class| {
            counter!("waypost_gateway_requests_total", "service" => name.clone(), "status" => class)
        });
        let seconds = histogram!("waypost_gateway_request_seconds", "service" => name);
        Self { found: now, requests, seconds, instances: DashMap::new() }
    }

    #[expect(clippy::disallowed_methods, reason = "the guard is held while an `Arc` is cloned")]
    fn instance(&self, service: &str, id: &str) -> Arc<Instance> {
        if let Some(instance) = self.instances.get(id) {
            return Arc::clone(&instance);
        }
        let instance = Arc::new(Instance::find(service, id));
        self.instances.insert(id.into(), Arc::clone(&instance));
        instance
    }
}

impl Instance {
    fn find(service: &str, id: &str) -> Self {
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
