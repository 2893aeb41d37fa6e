//! A run: rounds of one workload, by turns against the server and the limit, so that both have the same
//! machine.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    arguments::{Arguments, Setting, Workload},
    error::BenchError,
    figures::Figures,
    limit,
    progress::Progress,
    protocol::System,
    report::Report,
    server::{Program, Server},
    stage::Stage,
    workload::Load,
};

/// Measures, and returns what was found; nothing where it was to serve. `program` is what serves the
/// registry (`program serve`) and the limit (`program bench limit`), `url` the registry where none is
/// started. Dropped, it leaves no process behind, and what was registered elsewhere to its TTL.
pub async fn run(
    arguments: Arguments,
    url: &str,
    program: PathBuf,
) -> Result<Option<Report>, BenchError> {
    let Arguments { workload, setting } = arguments;
    let run = Run { setting, url, program: &program, progress: Progress::default() };
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

struct Run<'a> {
    setting: Setting,
    url: &'a str,
    program: &'a Path,
    progress: Progress,
}

impl Run<'_> {
    async fn measure<L: Load>(&self, load: &L) -> Result<Report, BenchError> {
        load.check()?;
        let _shown = self.progress.show();
        let mut measured = Player { begin: || self.server(load), playing: None };
        let mut limit = Player { begin: || self.limit(load), playing: None };
        let (mut figures, mut limits) = (Vec::new(), Vec::new());
        for _ in 0..self.setting.rounds {
            figures.push(measured.round(load).await?);
            limits.push(limit.round(load).await?);
        }
        measured.end().await?;
        let system = self.setting.system.name();
        Ok(Report::new(system, L::NAME, load.told(), &figures, &limits))
    }

    /// What is measured.
    async fn server<L: Load>(&self, load: &L) -> Result<Stage, BenchError> {
        let Setting { spawn, store, system, .. } = &self.setting;
        let server = if *spawn {
            Server::start(match system {
                System::Waypost => self.waypost(["serve", "--store", store.name()]),
                System::Etcd => {
                    Program { system: *system, file: "etcd".into(), arguments: Vec::new() }
                }
            })
            .await?
        } else {
            Server::running(self.url)?
        };
        Ok(self.stage(load, system.name(), *system, server, false))
    }

    /// The limit, for the same load.
    async fn limit<L: Load>(&self, load: &L) -> Result<Stage, BenchError> {
        let plan = load.plan(String::new(), self.setting.payload);
        let numbers = [plan.payload.to_string(), plan.a_service.to_string()];
        let ttl_ms = load.limit_ttl_ms().to_string();
        let [payload, found] = &numbers;
        let words =
            ["bench", "limit", "--limit-payload", payload, "--found", found, "--ttl-ms", &ttl_ms];
        let server = Server::start(self.waypost(words)).await?;
        Ok(self.stage(load, "limit", System::Waypost, server, true))
    }

    fn waypost<const N: usize>(&self, words: [&str; N]) -> Program {
        let arguments = words.map(str::to_owned).into();
        Program { system: System::Waypost, file: self.program.to_owned(), arguments }
    }

    fn stage<L: Load>(
        &self,
        load: &L,
        name: &'static str,
        system: System,
        server: Server,
        is_limit: bool,
    ) -> Stage {
        // What others registered is not touched, nor are those of a run before.
        let namespace = format!("bench-{:08x}", fastrand::u32(..));
        Stage {
            name,
            server,
            protocol: system.protocol(),
            plan: load.plan(namespace, self.setting.payload),
            progress: self.progress.clone(),
            is_limit,
            granted: Default::default(),
        }
    }
}

/// One of the two that are measured by turns.
struct Player<B, R> {
    begin: B,
    /// From one round to the next.
    playing: Option<(Playing, R)>,
}

/// A server under load. Where it was started for the run, it ends with this value: tasks that were left
/// may know the stage for longer.
struct Playing(Arc<Stage>);

impl Drop for Playing {
    fn drop(&mut self) {
        self.0.server.end();
    }
}

impl<B, R> Player<B, R>
where
    B: AsyncFn() -> Result<Stage, BenchError>,
{
    async fn round<L: Load<Ready = R>>(&mut self, load: &L) -> Result<Figures, BenchError> {
        let (playing, ready) = match self.playing.take() {
            Some(playing) => playing,
            None => {
                let playing = Playing(Arc::new((self.begin)().await?));
                let ready = load.prepare(&playing.0).await?;
                (playing, ready)
            }
        };
        let figures = load.round(&playing.0, &ready).await?;
        // Else the next round has a server of its own.
        if !(L::FRESH && playing.0.server.is_own()) {
            self.playing = Some((playing, ready));
        }
        Ok(figures)
    }

    /// Leaves nothing in a registry that others use.
    async fn end(self) -> Result<(), BenchError> {
        match self.playing {
            Some((playing, ready)) => {
                drop(ready);
                playing.0.leave().await
            }
            None => Ok(()),
        }
    }
}
