//! Instances with their load and health. An `endpoint` has a `latency`, a health (`outlier`, from
//! the `outcome`s of calls) and the `service_stats` of its service (`coarse_clock`, `slowest`). The
//! endpoints of a service form a `snapshot`; those that take traffic form a `weighted` list
//! (`weights`). Imports nothing of balancing.

mod coarse_clock;
#[expect(clippy::module_inception, reason = "the folder's first noun")]
mod endpoint;
mod latency;
mod outcome;
mod outlier;
mod service_stats;
mod slowest;
mod snapshot;
mod weighted;
mod weights;

pub(crate) use self::{
    coarse_clock::Tick,
    endpoint::{Admission, Endpoint, ResponseTime, address},
    latency::{EQUAL_BELOW, Estimate},
    service_stats::ServiceStats,
    weighted::WeightedEndpoints,
    weights::{Weights, scale_index},
};
pub use self::{outcome::Outcome, snapshot::Snapshot};
