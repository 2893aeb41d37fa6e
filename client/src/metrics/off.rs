//! Without the feature `metrics`, nobody is told anything, and it costs nothing.

use std::time::Duration;

use crate::proto::WatchResponse;

/// Of one service.
#[derive(Debug)]
pub(crate) struct Meters;

#[expect(clippy::unused_self, reason = "the same as where somebody is told")]
impl Meters {
    pub(crate) fn new(_namespace: &str, _service: &str) -> Self {
        Self
    }

    pub(crate) fn seen(&self) {}

    pub(crate) fn begun(&self) {}

    pub(crate) fn ended(&self) {}

    pub(crate) fn found_none(&self) {}

    pub(crate) fn served(&self, _took: Duration) {}

    pub(crate) fn failed(&self, _took: Duration) {}

    pub(crate) fn ejected(&self) {}

    pub(crate) fn retried(&self) {}

    pub(crate) fn stale(&self, _age: Duration) {}

    pub(crate) fn received(&self, _message: &WatchResponse) {}
}
