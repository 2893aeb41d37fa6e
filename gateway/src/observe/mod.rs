//! What operators see of requests: ids, log lines, metrics.

pub(crate) mod access_log;
pub(crate) mod correlation;
pub(crate) mod metrics;
