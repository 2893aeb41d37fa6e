//! What a client measures of a service for its user: told through the `metrics` facade with the feature
//! of that name, and to nobody without.

#[cfg(feature = "metrics")]
mod facade;
#[cfg(not(feature = "metrics"))]
mod noop;

#[cfg(feature = "metrics")]
pub(crate) use facade::ServiceMetrics;
#[cfg(not(feature = "metrics"))]
pub(crate) use noop::NoopMetrics as ServiceMetrics;
