//! The workload `register`: registrations of new instances.

use std::{sync::Arc, time::Duration};

use clap::Args;

use super::Load;
use crate::{
    error::BenchError,
    figures::Figures,
    load::callers::{Callers, StopCondition},
    plan::InstancePlan,
    population::LONG_TTL,
    target::LoadTarget,
};

/// Register new instances.
#[derive(Clone, Debug, Args)]
pub(crate) struct RegisterLoad {
    /// Connections.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Callers, each of which waits for a response before its next call.
    #[arg(long, default_value_t = 64)]
    callers: usize,
    /// Registrations after which a round ends [default: none, the time ends it].
    #[arg(long)]
    instances: Option<u64>,
    /// Instances of each service.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    a_service: u64,
    /// Registrations a second, independent of responses [default: none, as many as are answered].
    #[arg(long)]
    rate: Option<f64>,
    /// Longest duration of a round.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    duration: Duration,
}

impl Load for RegisterLoad {
    type Ready = ();

    const FRESH: bool = true;
    const NAME: &'static str = "register";

    fn describe(&self) -> String {
        let Self { connections, callers, a_service, .. } = self;
        let rate = self.rate.map_or_else(String::new, |rate| format!(" at {rate}/s"));
        format!(
            "{callers} callers on {connections} connections{rate}, {a_service} instances a service"
        )
    }

    fn plan(&self, namespace: String, payload: usize) -> InstancePlan {
        InstancePlan { namespace, per_service: self.a_service, payload }
    }

    async fn prepare(&self, _stage: &Arc<LoadTarget>) -> Result<(), BenchError> {
        Ok(())
    }

    async fn round(&self, target: &Arc<LoadTarget>, (): &()) -> Result<Figures, BenchError> {
        let connections = target.connect(self.connections).await?;
        let end = StopCondition { count: self.instances, ..StopCondition::after(self.duration) };
        let callers = Callers { callers: self.callers, rate: self.rate, end };
        let before = target.usage();
        let calls = {
            let target = Arc::clone(target);
            move |connection, number| {
                let target = Arc::clone(&target);
                async move { target.register(&connection, number, 0, LONG_TTL).await.map(drop) }
            }
        };
        let done = callers.call(&connections, &target.progress, calls).await;
        let (server, load) = target.spent(before);
        let mut figures = Figures::default();
        done.push_to(&mut figures);
        let registered = done.latencies.len();
        figures.push_cost(server, load, done.time, registered);
        if let (Some(before), Some(after)) = (before.0, server)
            && registered > 0
        {
            let added = after.memory_bytes.saturating_sub(before.memory_bytes);
            figures.push("memory an instance", "B", added as f64 / registered as f64);
        }
        Ok(figures)
    }
}
