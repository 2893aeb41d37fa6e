//! The metrics without the feature `metrics`: no-ops, at no cost.

use std::time::Duration;

use crate::proto::WatchResponse;

/// Discards the metrics of one service.
#[derive(Debug)]
pub(crate) struct NoopMetrics;

#[expect(clippy::unused_self, reason = "the interface of the metrics facade")]
impl NoopMetrics {
    pub(crate) fn new(_namespace: &str, _service: &str) -> Self {
        Self
    }

    pub(crate) fn register(&self) {}

    pub(crate) fn call_started(&self) {}

    pub(crate) fn call_ended(&self) {}

    pub(crate) fn pick_failed(&self) {}

    pub(crate) fn call_succeeded(&self, _took: Duration) {}

    pub(crate) fn call_failed(&self, _took: Duration) {}

    pub(crate) fn instance_ejected(&self) {}

    pub(crate) fn call_retried(&self) {}

    pub(crate) fn set_staleness(&self, _age: Duration) {}

    pub(crate) fn changes_received(&self, _message: &WatchResponse) {}
}
