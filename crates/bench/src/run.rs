//! A run: rounds of one workload, alternating between the server and the limit, so that both have
//! the same machine.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use waypost_client::RegistryChannel;

use crate::{
    arguments::{LoadArguments, RunOptions, Workload},
    error::BenchError,
    figures::Figures,
    limit,
    progress::RunProgress,
    protocol::System,
    report::Report,
    server::{BenchServer, ServerProgram},
    target::LoadTarget,
    workload::Load,
};

/// Runs a workload and returns its report; `None` for the limit's server. `program` serves the
/// registry (`program serve`) and the limit (`program bench limit`); `url` is the registry if none
/// is started, and `registry` the way to it. A dropped future leaves no process; instances in
/// another registry expire with their TTL.
pub async fn run(
    arguments: LoadArguments,
    url: &str,
    registry: RegistryChannel,
    program: PathBuf,
) -> Result<Option<Report>, BenchError> {
    let LoadArguments { workload, setting } = arguments;
    let progress = RunProgress::default();
    let run = BenchRun { setting, url, registry, program: &program, progress };
    let report = match workload {
        Workload::Limit(arguments) => return limit::serve(&arguments).await.map(|()| None),
        Workload::Register(load) => run.measure(&load).await,
        Workload::Heartbeat(load) => run.measure(&load).await,
        Workload::Resolve(load) => run.measure(&load).await,
        Workload::Watch(load) => run.measure(&load).await,
        Workload::Expiry(load) => run.measure(&load).await,
        Workload::Restart(load) => run.measure(&load).await,
        Workload::Mixed(load) => run.measure(&load).await,
    };
    report.map(Some)
}

/// The options of a run, shared by its rounds.
struct BenchRun<'a> {
    setting: RunOptions,
    url: &'a str,
    registry: RegistryChannel,
    program: &'a Path,
    progress: RunProgress,
}

impl BenchRun<'_> {
    async fn measure<L: Load>(&self, load: &L) -> Result<Report, BenchError> {
        load.check()?;
        let _line = self.progress.show();
        let mut measured = Participant { start: || self.server(load), running: None };
        let mut limit = Participant { start: || self.limit(load), running: None };
        let (mut figures, mut limits) = (Vec::new(), Vec::new());
        for _ in 0..self.setting.rounds {
            figures.push(measured.round(load).await?);
            limits.push(limit.round(load).await?);
        }
        measured.finish().await?;
        let system = self.setting.system.name();
        Ok(Report::new(system, L::NAME, load.describe(), &figures, &limits))
    }

    /// Starts or connects to the measured system.
    async fn server<L: Load>(&self, load: &L) -> Result<LoadTarget, BenchError> {
        let RunOptions { spawn, store, system, .. } = &self.setting;
        let server = if *spawn {
            BenchServer::start(match system {
                System::Waypost => self.waypost(["serve", "--store", store.name()]),
                System::Etcd => {
                    ServerProgram { system: *system, file: "etcd".into(), arguments: Vec::new() }
                }
            })
            .await?
        } else {
            BenchServer::running(self.url, self.registry.clone())?
        };
        Ok(self.target(load, system.name(), *system, server))
    }

    /// Starts the limit for the same load.
    async fn limit<L: Load>(&self, load: &L) -> Result<LoadTarget, BenchError> {
        let plan = load.plan(String::new(), self.setting.payload);
        let numbers = [plan.payload.to_string(), plan.per_service.to_string()];
        let ttl_ms = load.limit_ttl_ms().to_string();
        let [payload, found] = &numbers;
        let words =
            ["bench", "limit", "--limit-payload", payload, "--found", found, "--ttl-ms", &ttl_ms];
        let server = BenchServer::start(self.waypost(words)).await?;
        let target = self.target(load, "limit", System::Waypost, server);
        Ok(LoadTarget { is_limit: true, ..target })
    }

    fn waypost<const N: usize>(&self, words: [&str; N]) -> ServerProgram {
        let arguments = words.map(str::to_owned).into();
        ServerProgram { system: System::Waypost, file: self.program.to_owned(), arguments }
    }

    fn target<L: Load>(
        &self,
        load: &L,
        name: &'static str,
        system: System,
        server: BenchServer,
    ) -> LoadTarget {
        // A namespace of its own: instances of others and of earlier runs stay untouched.
        let namespace = format!("bench-{:08x}", fastrand::u32(..));
        LoadTarget {
            name,
            server,
            protocol: system.protocol(),
            plan: load.plan(namespace, self.setting.payload),
            progress: self.progress.clone(),
            is_limit: false,
            granted: Default::default(),
        }
    }
}

/// One of the two systems that are measured alternately.
struct Participant<B, R> {
    start: B,
    /// Kept from one round to the next.
    running: Option<(RunningTarget, R)>,
}

/// A server under load. Dropping it stops a server that was started for the run: leftover tasks may
/// own the target for longer.
struct RunningTarget(Arc<LoadTarget>);

impl Drop for RunningTarget {
    fn drop(&mut self) {
        self.0.server.stop();
    }
}

impl<B, R> Participant<B, R>
where
    B: AsyncFn() -> Result<LoadTarget, BenchError>,
{
    async fn round<L: Load<Ready = R>>(&mut self, load: &L) -> Result<Figures, BenchError> {
        let (running, ready) = match self.running.take() {
            Some(running) => running,
            None => {
                let running = RunningTarget(Arc::new((self.start)().await?));
                let ready = load.prepare(&running.0).await?;
                (running, ready)
            }
        };
        let figures = load.round(&running.0, &ready).await?;
        // Otherwise the next round starts a new server.
        if !(L::FRESH && running.0.server.is_own()) {
            self.running = Some((running, ready));
        }
        Ok(figures)
    }

    /// Removes the instances from a registry that others use.
    async fn finish(self) -> Result<(), BenchError> {
        match self.running {
            Some((running, ready)) => {
                drop(ready);
                running.0.deregister_all().await
            }
            None => Ok(()),
        }
    }
}
