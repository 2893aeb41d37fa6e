//! What servers are asked to do. A workload knows no system, and is the same for the limit.

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

/// One kind of load.
pub(crate) trait Load: Sync {
    /// What the rounds of one server share.
    type Ready: Send;

    /// Whether a server that was started for the run is started anew for each round.
    const FRESH: bool = false;

    /// The name of its command.
    const NAME: &'static str;

    /// What is done, for the heading.
    fn describe(&self) -> String;

    /// Whether the arguments make sense together.
    fn check(&self) -> Result<(), BenchError> {
        Ok(())
    }

    /// What instances are like.
    fn plan(&self, namespace: String, payload: usize) -> InstancePlan;

    /// How long after a renewal the limit's server has instances go; nothing: never.
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
