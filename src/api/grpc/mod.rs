//! gRPC: the three services of `waypost.v1`, health and reflection. From the bottom: `message/`,
//! `stream/`, `services/`, and the dispatcher above them.

mod deadline;
mod dispatch;
mod early;
mod error;
pub(crate) mod message;
mod methods;
pub(crate) mod proto;
mod services;
mod stream;

pub(in crate::api) use dispatch::GrpcApi;
pub use early::{EarlyServices, HealthReport, early_services};
