//! What operators see of requests: log lines and metrics.

pub(crate) mod access_log;
pub(crate) mod metrics;
