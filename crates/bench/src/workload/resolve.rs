//! Lookups of services.

use std::{sync::Arc, time::Duration};

use clap::Args;

use super::Load;
use crate::{
    error::BenchError,
    error::CallError,
    figures::Figures,
    load::callers::{Crowd, End},
    plan::InstancePlan,
    population::{LONG_TTL, Population},
    stage::Stage,
};

/// Look services up.
#[derive(Clone, Debug, Args)]
pub(crate) struct Resolve {
    /// Connections.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Callers, each of which waits for an answer before it asks again.
    #[arg(long, default_value_t = 64)]
    callers: usize,
    /// Services.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    services: u64,
    /// Instances in all.
    #[arg(long, default_value_t = 4_000, value_parser = clap::value_parser!(u64).range(1..))]
    instances: u64,
    /// Lookups a second, sent whether those before are answered or not. Without it, as many as are
    /// answered.
    #[arg(long)]
    rate: Option<f64>,
    /// How long a round takes.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    duration: Duration,
}

impl Load for Resolve {
    type Ready = Population;

    const NAME: &'static str = "resolve";

    fn told(&self) -> String {
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
        let why = "--instances has to be a multiple of --services: every answer is checked";
        Err(BenchError::Arguments(why.to_owned()))
    }

    fn plan(&self, namespace: String, payload: usize) -> InstancePlan {
        InstancePlan { namespace, a_service: self.instances / self.services, payload }
    }

    async fn prepare(&self, stage: &Arc<Stage>) -> Result<Population, BenchError> {
        let connections = stage.connect(self.connections).await?;
        Population::settle(stage, &connections, 0..self.instances, LONG_TTL).await
    }

    async fn round(
        &self,
        stage: &Arc<Stage>,
        _population: &Population,
    ) -> Result<Figures, BenchError> {
        let connections = stage.connect(self.connections).await?;
        let end = End::after(self.duration);
        let crowd = Crowd { callers: self.callers, rate: self.rate, end };
        let (services, a_service) = (self.services, stage.plan.a_service);
        let before = stage.usage();
        let calls = {
            let stage = Arc::clone(stage);
            move |connection, number: u64| {
                let stage = Arc::clone(&stage);
                async move {
                    // A prime: neighbours in time are far from each other.
                    let found = stage.resolve(&connection, number * 7_919 % services).await?;
                    expect(found, a_service)
                }
            }
        };
        let done = crowd.call(&connections, &stage.progress, calls).await;
        let (server, load) = stage.spent(before);
        let mut figures = Figures::default();
        done.push_to(&mut figures);
        figures.push_cost(server, load, done.time, done.latencies.len());
        Ok(figures)
    }
}

/// Whether all were found.
pub(super) fn expect(found: u64, expected: u64) -> Result<(), CallError> {
    if found == expected { Ok(()) } else { Err(CallError::Nonsense("instances are missing")) }
}
