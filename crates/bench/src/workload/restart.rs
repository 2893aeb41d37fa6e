//! The workload `restart`: `kill -9`, then the time until the first answered lookup, with nothing
//! lost.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use clap::Args;
use hdrhistogram::Histogram;

use super::Load;
use crate::{
    error::BenchError,
    figures::Figures,
    load::callers::{Callers, StopCondition},
    plan::InstancePlan,
    population::{LONG_TTL, Population},
    process::usage,
    progress::RunProgress,
    target::{LoadTarget, counted},
};

const CONNECTIONS: usize = 16;
const CALLERS: usize = 64;
/// Restarts in one round.
const RESTARTS: usize = 3;

/// Kill the server and restart it from its data directory, three times a round. Needs `--spawn`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RestartLoad {
    /// Instances.
    #[arg(long, default_value_t = 50_000)]
    instances: u64,
    /// Instances of each service.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    a_service: u64,
}

impl Load for RestartLoad {
    type Ready = Population;

    const NAME: &'static str = "restart";

    fn describe(&self) -> String {
        format!("kill -9 with {} instances, until the first lookup is answered", self.instances)
    }

    fn check(&self) -> Result<(), BenchError> {
        if self.instances.is_multiple_of(self.a_service) {
            return Ok(());
        }
        let why = "--instances must be a multiple of --a-service, since every service is looked up";
        Err(BenchError::Arguments(why.to_owned()))
    }

    fn plan(&self, namespace: String, payload: usize) -> InstancePlan {
        InstancePlan { namespace, per_service: self.a_service, payload }
    }

    async fn prepare(&self, target: &Arc<LoadTarget>) -> Result<Population, BenchError> {
        if !target.server.is_own() {
            let why = "this workload kills the server: add --spawn to start one";
            return Err(BenchError::Arguments(why.to_owned()));
        }
        let connections = target.connect(CONNECTIONS).await?;
        Population::register(target, &connections, 0..self.instances, LONG_TTL).await
    }

    async fn round(
        &self,
        target: &Arc<LoadTarget>,
        _population: &Population,
    ) -> Result<Figures, BenchError> {
        target.progress.begin(format!("{}: restarts", target.name));
        let mut micros = Histogram::<u64>::new(3).expect("three digits are supported");
        let mut lost = 0;
        let mut figures = Figures::default();
        for _ in 0..RESTARTS {
            let took = target.server.restart().await?;
            micros.record(took.as_micros() as u64).expect("the histogram resizes");
            target.progress.step();
            if !target.is_limit {
                lost += self.lost(target, &mut figures).await?;
            }
        }
        figures.push("throughput", "/s", 1e6 / micros.mean());
        figures.push_latencies(&micros);
        figures.push("lost", "", lost as f64);
        if let Some(usage) = target.server.pid().and_then(usage) {
            figures.push("server memory", "MB", usage.memory_bytes as f64 / 1e6);
            figures.push("server CPU", "s", usage.cpu.as_secs_f64());
        }
        figures.push("directory", "MB", target.server.disk_bytes()? as f64 / 1e6);
        Ok(figures)
    }
}

impl RestartLoad {
    /// Returns the number of instances that were lost.
    async fn lost(
        &self,
        target: &Arc<LoadTarget>,
        figures: &mut Figures,
    ) -> Result<u64, BenchError> {
        let connections = target.connect(CONNECTIONS).await?;
        let found = Arc::new(AtomicU64::new(0));
        let count = self.instances / self.a_service;
        let callers = Callers { callers: CALLERS, rate: None, end: StopCondition::count(count) };
        let (looking, adding) = (Arc::clone(target), Arc::clone(&found));
        let unseen = RunProgress::default();
        let done = callers.call(&connections, &unseen, move |connection, service| {
            let (target, found) = (Arc::clone(&looking), Arc::clone(&adding));
            async move {
                found.fetch_add(target.resolve(&connection, service).await?, Ordering::Relaxed);
                Ok(())
            }
        });
        figures.note_first(done.await.first_error.as_ref());
        Ok(self.instances.saturating_sub(counted(&found)))
    }
}
