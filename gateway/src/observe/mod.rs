//! Log lines and metrics of requests. A request has a record from its head on and gets an outcome;
//! both go into its log line and the metrics once its response has been sent.

mod access_log;
mod logged_body;
mod metrics;
mod record;

pub(crate) use self::{
    access_log::AccessLog,
    logged_body::{LoggedBody, SentBody},
    metrics::RequestMetrics,
    record::{RequestOutcome, RequestRecord},
};
