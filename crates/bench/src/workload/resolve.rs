//! The workload `resolve`: lookups of services.

use std::{sync::Arc, time::Duration};

use clap::Args;

use super::Load;
use crate::{
    error::BenchCallError,
    error::BenchError,
    figures::Figures,
    load::callers::{Callers, StopCondition},
    plan::InstancePlan,
    population::{LONG_TTL, Population},
    target::LoadTarget,
};

/// Look up services.
#[derive(Clone, Debug, Args)]
pub(crate) struct ResolveLoad {
    /// Connections.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Callers, each of which waits for a response before its next call.
    #[arg(long, default_value_t = 64)]
    callers: usize,
    /// Services.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    services: u64,
    /// Instances in all.
    #[arg(long, default_value_t = 4_000, value_parser = clap::value_parser!(u64).range(1..))]
    instances: u64,
    /// Lookups a second, independent of responses [default: none, as many as are answered].
    #[arg(long)]
    rate: Option<f64>,
    /// Duration of a round.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    duration: Duration,
}

impl Load for ResolveLoad {
    type Ready = Population;

    const NAME: &'static str = "resolve";

    fn describe(&self) -> String {
        let Self { connections, callers, services, instances, .. } = self;
        let rate = self.rate.map_or_else(String::new, |rate| format!(" at {rate}/s"));
        format!(
            "{callers} callers on {connections} connections{rate}, {services} services of {} instances",
            instances / services
        )
    }

    fn check(&self) -> Result<(), BenchError> {
        if self.instances.is_multiple_of(self.services) {
            return Ok(());
        }
        let why = "--instances must be a multiple of --services, since every response is checked";
        Err(BenchError::Arguments(why.to_owned()))
    }

    fn plan(&self, namespace: String, payload: usize) -> InstancePlan {
        InstancePlan { namespace, per_service: self.instances / self.services, payload }
    }

    async fn prepare(&self, target: &Arc<LoadTarget>) -> Result<Population, BenchError> {
        let connections = target.connect(self.connections).await?;
        Population::register(target, &connections, 0..self.instances, LONG_TTL).await
    }

    async fn round(
        &self,
        target: &Arc<LoadTarget>,
        _population: &Population,
    ) -> Result<Figures, BenchError> {
        let connections = target.connect(self.connections).await?;
        let end = StopCondition::after(self.duration);
        let callers = Callers { callers: self.callers, rate: self.rate, end };
        let (services, a_service) = (self.services, target.plan.per_service);
        let before = target.usage();
        let calls = {
            let target = Arc::clone(target);
            move |connection, number: u64| {
                let target = Arc::clone(&target);
                async move {
                    // A prime: consecutive lookups are of distant services.
                    let found = target.resolve(&connection, number * 7_919 % services).await?;
                    expect(found, a_service)
                }
            }
        };
        let done = callers.call(&connections, &target.progress, calls).await;
        let (server, load) = target.spent(before);
        let mut figures = Figures::default();
        done.push_to(&mut figures);
        figures.push_cost(server, load, done.time, done.latencies.len());
        Ok(figures)
    }
}

/// Checks the number of instances in a response.
pub(super) fn expect(found: u64, expected: u64) -> Result<(), BenchCallError> {
    if found == expected {
        Ok(())
    } else {
        Err(BenchCallError::InvalidResponse("instances are missing"))
    }
}
