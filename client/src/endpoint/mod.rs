//! Instances as calls see them. One instance (`endpoint`) has a latency, a health (`outlier`) and a share
//! of what its service measures (`service_stats`: `coarse_clock`, `slowest`); those of a service form a
//! `snapshot`, and those that take traffic a `weighted` list (`weights`).

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
