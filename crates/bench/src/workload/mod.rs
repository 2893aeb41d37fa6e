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
    expiry::Expiry, heartbeat::Heartbeat, mixed::Mixed, register::Register, resolve::Resolve,
    restart::Restart, watch::Watch,
};
use crate::{error::BenchError, figures::Figures, plan::InstancePlan, stage::Stage};

/// One kind of load.
pub(crate) trait Load: Sync {
    /// What the rounds of one server share.
    type Ready: Send;

    /// Whether a server that was started for the run is started anew for each round.
    const FRESH: bool = false;

    /// The name of its command.
    const NAME: &'static str;

    /// What is done, for the heading.
    fn told(&self) -> String;

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

    async fn prepare(&self, stage: &Arc<Stage>) -> Result<Self::Ready, BenchError>;

    async fn round(&self, stage: &Arc<Stage>, ready: &Self::Ready) -> Result<Figures, BenchError>;
}
