//! Metrics through the facade of the `metrics` crate.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use metrics::{Counter, Gauge, Histogram, SharedString, counter, gauge, histogram};

use crate::{
    proto::{WatchResponse, watch_response::Event},
    runtime::clock,
};

/// The metrics of one service. Its series are registered with the installed recorder once the
/// service has an instance or a pick fails: a name that is only watched leaves no series behind.
#[derive(Debug)]
pub(crate) struct ServiceMetrics {
    namespace: Box<str>,
    service: Box<str>,
    series: OnceLock<Series>,
}

#[derive(Debug)]
struct Series {
    picks: Counter,
    picks_failed: Counter,
    in_flight: Gauge,
    served: Histogram,
    failed: Histogram,
    ejections: Counter,
    retries: Counter,
    stale: Gauge,
    propagation: Histogram,
}

impl Series {
    fn register(namespace: &str, service: &str) -> Self {
        let labels = [("namespace", namespace), ("service", service)]
            .map(|(label, value)| (label, SharedString::from(value.to_owned())));
        let duration = |outcome: &'static str| {
            let outcome = ("outcome", SharedString::from(outcome));
            let labels = [labels[0].clone(), labels[1].clone(), outcome];
            histogram!("waypost_client_call_seconds", &labels)
        };
        Self {
            picks: counter!("waypost_client_picks_total", &labels),
            picks_failed: counter!("waypost_client_picks_failed_total", &labels),
            in_flight: gauge!("waypost_client_calls_in_flight", &labels),
            served: duration("success"),
            failed: duration("failure"),
            ejections: counter!("waypost_client_ejections_total", &labels),
            retries: counter!("waypost_client_retries_total", &labels),
            stale: gauge!("waypost_client_view_stale_seconds", &labels),
            propagation: histogram!("waypost_client_propagation_seconds", &labels),
        }
    }
}

impl ServiceMetrics {
    pub(crate) fn new(namespace: &str, service: &str) -> Self {
        let namespace = if namespace.is_empty() { "default" } else { namespace };
        Self { namespace: namespace.into(), service: service.into(), series: OnceLock::new() }
    }

    fn series(&self) -> &Series {
        self.series.get_or_init(|| Series::register(&self.namespace, &self.service))
    }

    /// Registers the series: the service has an instance.
    pub(crate) fn register(&self) {
        self.series();
    }

    pub(crate) fn call_started(&self) {
        let series = self.series();
        series.picks.increment(1);
        series.in_flight.increment(1.0);
    }

    pub(crate) fn call_ended(&self) {
        self.series().in_flight.decrement(1.0);
    }

    pub(crate) fn pick_failed(&self) {
        self.series().picks_failed.increment(1);
    }

    pub(crate) fn call_succeeded(&self, took: Duration) {
        self.series().served.record(took);
    }

    pub(crate) fn call_failed(&self, took: Duration) {
        self.series().failed.record(took);
    }

    pub(crate) fn instance_ejected(&self) {
        self.series().ejections.increment(1);
    }

    pub(crate) fn call_retried(&self) {
        self.series().retries.increment(1);
    }

    pub(crate) fn set_staleness(&self, age: Duration) {
        if let Some(series) = self.series.get() {
            series.stale.set(age);
        }
    }

    /// Records the propagation time of instances that were added.
    pub(crate) fn changes_received(&self, message: &WatchResponse) {
        let Some(Event::Changes(changes)) = &message.event else { return };
        for change in &changes.changes {
            let instance = change.instance.as_ref();
            // Otherwise a change made it pass the watch's filter.
            let new = instance.filter(|instance| instance.created_revision == change.revision);
            let at = new.and_then(|instance| instance.registered_at);
            let at = at.and_then(|at| SystemTime::try_from(at).ok());
            if let Some(took) = at.and_then(|at| clock::wall_now().duration_since(at).ok()) {
                self.series().propagation.record(took);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::*;
    use crate::proto::{Change, ChangeKind, Changes, Instance};

    fn change(kind: ChangeKind, created_revision: u64, age: Duration) -> Change {
        let registered_at = Some((clock::wall_now() - age).into());
        let instance = Instance { created_revision, registered_at, ..Instance::default() };
        Change { kind: kind.into(), instance: Some(instance), reason: 0, revision: 7 }
    }

    #[test]
    fn propagation_time_of_additions_is_recorded() {
        let recorder = DebuggingRecorder::new();
        let _installed = metrics::set_default_local_recorder(&recorder);
        let metrics = ServiceMetrics::new("", "orders");
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3_600));
        let changes = vec![
            change(ChangeKind::Added, 7, second),
            change(ChangeKind::Updated, 3, hour),
            // Now passes the filter.
            change(ChangeKind::Added, 4, hour),
        ];
        let event = Some(Event::Changes(Changes { changes }));
        metrics.changes_received(&WatchResponse { event, ..WatchResponse::default() });
        let told = recorder.snapshotter().snapshot().into_vec();
        let propagation = told.into_iter().find_map(|(key, _, _, value)| match value {
            DebugValue::Histogram(took) if key.key().name().contains("propagation") => Some(took),
            _ => None,
        });
        let took: Vec<f64> = propagation.unwrap().into_iter().map(Into::into).collect();
        assert!(took.len() == 1 && (1.0..10.0).contains(&took[0]), "{took:?}");
    }

    #[test]
    fn a_name_without_instances_leaves_no_series() {
        let recorder = DebuggingRecorder::new();
        let _installed = metrics::set_default_local_recorder(&recorder);
        let metrics = ServiceMetrics::new("", "made-up");
        metrics.changes_received(&WatchResponse::default());
        metrics.set_staleness(Duration::from_secs(3));
        assert!(recorder.snapshotter().snapshot().into_vec().is_empty());
        metrics.register();
        let series = recorder.snapshotter().snapshot().into_vec();
        assert!(
            series
                .iter()
                .all(|(key, ..)| key.key().labels().any(|label| label.value() == "made-up"))
        );
        assert_eq!(series.len(), 9);
    }
}
