//! Metrics of a service for the user's recorder: through the `metrics` facade with the feature of
//! that name, no-ops without.

#[cfg(feature = "metrics")]
mod facade;
#[cfg(not(feature = "metrics"))]
mod noop;

#[cfg(feature = "metrics")]
pub(crate) use facade::ServiceMetrics;
#[cfg(not(feature = "metrics"))]
pub(crate) use noop::NoopMetrics as ServiceMetrics;
