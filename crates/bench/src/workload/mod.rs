//! The workloads. They are independent of the system, and the same for the limit.

mod expiry;
mod heartbeat;
mod mixed;
mod register;
mod resolve;
mod restart;
mod watch;

use std::sync::Arc;

pub(crate) use self::{
    expiry::ExpiryLoad, heartbeat::HeartbeatLoad, mixed::MixedLoad, register::RegisterLoad,
    resolve::ResolveLoad, restart::RestartLoad, watch::WatchLoad,
};
use crate::{error::BenchError, figures::Figures, plan::InstancePlan, target::LoadTarget};

/// A workload.
pub(crate) trait Load: Sync {
    /// The state that the rounds of one server share.
    type Ready: Send;

    /// Set if each round needs a new server, where the run starts them.
    const FRESH: bool = false;

    /// The name of its command.
    const NAME: &'static str;

    /// Describes the load, for the heading.
    fn describe(&self) -> String;

    /// Checks that the arguments are consistent.
    fn check(&self) -> Result<(), BenchError> {
        Ok(())
    }

    /// Returns the shape of the instances.
    fn plan(&self, namespace: String, payload: usize) -> InstancePlan;

    /// Returns the time from a renewal to the removal of instances by the limit; 0 for never.
    fn limit_ttl_ms(&self) -> u64 {
        0
    }

    async fn prepare(&self, target: &Arc<LoadTarget>) -> Result<Self::Ready, BenchError>;

    async fn round(
        &self,
        target: &Arc<LoadTarget>,
        ready: &Self::Ready,
    ) -> Result<Figures, BenchError>;
}
