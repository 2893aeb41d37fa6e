//! The workload `watch`: changes at a constant rate, and the latency until each of many watchers
//! has them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clap::Args;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, timeout},
};

use super::Load;
use crate::{
    error::BenchCallError,
    error::BenchError,
    figures::Figures,
    load::connection::{BenchConnection, StreamReceiver},
    load::latencies::Latencies,
    load::pace::Pace,
    plan::InstancePlan,
    population::{LONG_TTL, Population},
    protocol::ObservedEvent,
    target::{LoadTarget, counted},
};

/// Connections that register and send changes.
const WRITING_CONNECTIONS: usize = 4;
/// The times to wait for watches to open, and for the last change to reach all.
const READY_MAX: Duration = Duration::from_secs(120);
const SEEN_MAX: Duration = Duration::from_secs(30);

/// Change instances while many watchers receive the changes.
#[derive(Clone, Debug, Args)]
pub(crate) struct WatchLoad {
    /// Connections of watchers.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Watchers, each with a stream.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    watchers: u64,
    /// Services; each watcher watches one, and each change is of one.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    services: u64,
    /// Instances in all.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    instances: u64,
    /// Changes a second, independent of responses.
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Time over which a round makes changes.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
}

impl Load for WatchLoad {
    type Ready = ();

    const NAME: &'static str = "watch";

    fn describe(&self) -> String {
        let Self { connections, watchers, services, instances, rate, .. } = self;
        format!(
            "{rate} changes/s of {instances} instances in {services} services, seen by {watchers} \
             watchers on {connections} connections"
        )
    }

    fn check(&self) -> Result<(), BenchError> {
        let why = if !self.instances.is_multiple_of(self.services) {
            "--instances must be a multiple of --services"
        } else if self.rate <= 0.0 || self.connections == 0 {
            "--rate and --connections must be greater than 0"
        } else {
            return Ok(());
        };
        Err(BenchError::Arguments(why.to_owned()))
    }

    fn plan(&self, namespace: String, payload: usize) -> InstancePlan {
        InstancePlan { namespace, per_service: self.instances / self.services, payload }
    }

    async fn prepare(&self, _stage: &Arc<LoadTarget>) -> Result<(), BenchError> {
        Ok(())
    }

    async fn round(&self, target: &Arc<LoadTarget>, (): &()) -> Result<Figures, BenchError> {
        let writing = target.connect(WRITING_CONNECTIONS).await?;
        let population =
            Population::register(target, &writing, 0..self.instances, LONG_TTL).await?;
        let received_bytes = Arc::default();
        let alone = target.usage().0;
        let watching = target.connect_counted(self.connections, &received_bytes).await?;
        let board = Arc::new(ChangeBoard::new(self.changes(), self.services));
        let watchers = self.begin(target, &watching, &board).await?;
        let watched = target.usage().0;
        target.progress.begin(format!("{}: changes seen", target.name));
        received_bytes.store(0, Ordering::Relaxed);
        let (begin, before) = (Instant::now(), target.usage());
        let errors = self.change(target, &writing, &population, &board, begin).await;
        let unseen: u64 = watchers.join_all().await.into_iter().sum();
        let time = begin.elapsed();
        let (server, load) = target.spent(before);

        let seen = board.latencies.sum();
        let mut figures = Figures::default();
        figures.push("throughput", "changes/s", self.changes() as f64 / time.as_secs_f64());
        figures.push("told", "/s", seen.len() as f64 / time.as_secs_f64());
        figures.push_latencies(&seen);
        figures.push("missed", "", (counted(&board.missed) + unseen) as f64);
        figures.push("repeated", "", counted(&board.repeated) as f64);
        figures.push("errors", "", errors.len() as f64);
        figures.note_first(errors.first());
        figures.push_cost(server, load, time, seen.len());
        let each = counted(&received_bytes) as f64 / self.changes() as f64;
        figures.push("bytes a change", "B", each);
        if let (Some(alone), Some(watched)) = (alone, watched) {
            let added = watched.memory_bytes.saturating_sub(alone.memory_bytes);
            figures.push("memory a watcher", "B", added as f64 / self.watchers as f64);
        }
        Ok(figures)
    }
}

impl WatchLoad {
    fn changes(&self) -> u64 {
        (self.rate * self.duration.as_secs_f64()).ceil() as u64
    }

    /// Opens the watches. Returns once all are open; each task returns the number of changes that
    /// it missed at the end.
    async fn begin(
        &self,
        target: &Arc<LoadTarget>,
        connections: &[BenchConnection],
        board: &Arc<ChangeBoard>,
    ) -> Result<JoinSet<u64>, BenchError> {
        target.progress.begin(format!("{}: opening watches", target.name));
        let ready = Arc::new(Semaphore::new(0));
        let mut tasks = JoinSet::new();
        for watcher in 0..self.watchers {
            let connection = connections[watcher as usize % connections.len()].clone();
            let (target, board) = (Arc::clone(target), Arc::clone(board));
            let (ready, service) = (Arc::clone(&ready), watcher % self.services);
            tasks.spawn(async move {
                let watching = LoadWatcher { target, board, service, expected: service + 1 };
                watching.run(watcher as usize, connection, &ready).await
            });
        }
        let all = u32::try_from(self.watchers).expect("fewer than 2^32 watchers");
        let standing = timeout(READY_MAX, ready.acquire_many(all)).await;
        let silent = BenchError::Silent { what: "a watch", seconds: READY_MAX.as_secs() };
        standing.map_err(|_| silent)?.expect("the semaphore is never closed").forget();
        Ok(tasks)
    }

    /// Makes the changes, those of one service one after the other. Returns the errors.
    async fn change(
        &self,
        target: &Arc<LoadTarget>,
        connections: &[BenchConnection],
        population: &Population,
        board: &Arc<ChangeBoard>,
        begin: Instant,
    ) -> Vec<BenchCallError> {
        let mut tasks = JoinSet::new();
        for service in 0..self.services {
            let a_service = target.plan.per_service;
            let own = service * a_service..(service + 1) * a_service;
            let leases: Vec<u64> =
                own.map(|index| population.lease(index).load(Ordering::Relaxed)).collect();
            let connection = connections[service as usize % connections.len()].clone();
            let (target, board) = (Arc::clone(target), Arc::clone(board));
            let mut pace = Pace::new(begin, self.rate, service as usize, self.services as usize);
            let (services, changes) = (self.services, self.changes());
            tasks.spawn(async move {
                let mut errors = Vec::new();
                for number in (service + 1..=changes).step_by(services as usize) {
                    let nth = (number - 1) / services % a_service;
                    let instance = target.plan.instance(service * a_service + nth, number);
                    let call = target.protocol.change(&instance, leases[nth as usize]);
                    board.send(number, pace.next().await);
                    errors.extend(connection.call(call).await.err());
                }
                errors
            });
        }
        tasks.join_all().await.into_iter().flatten().collect()
    }
}

/// The times of the sent changes, and the results of the watchers.
#[derive(Debug)]
struct ChangeBoard {
    base: Instant,
    /// Nanoseconds after the base, by number; numbers start at 1.
    sent: Box<[AtomicU64]>,
    services: u64,
    latencies: Latencies,
    missed: AtomicU64,
    repeated: AtomicU64,
}

impl ChangeBoard {
    fn new(changes: u64, services: u64) -> Self {
        Self {
            base: Instant::now(),
            sent: (0..=changes).map(|_| AtomicU64::new(0)).collect(),
            services,
            latencies: Latencies::new(),
            missed: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
        }
    }

    fn send(&self, number: u64, at: Instant) {
        let nanos = (at - self.base).as_nanos() as u64;
        self.sent[number as usize].store(nanos, Ordering::Release);
    }

    /// Records a received change. Returns the next change that the watcher expects.
    fn see(&self, watcher: usize, expected: u64, number: u64) -> u64 {
        let now = self.base.elapsed();
        let Some(sent) = self.sent.get(number as usize) else {
            self.repeated.fetch_add(1, Ordering::Relaxed);
            return expected;
        };
        if number < expected {
            self.repeated.fetch_add(1, Ordering::Relaxed);
            return expected;
        }
        self.missed.fetch_add((number - expected) / self.services, Ordering::Relaxed);
        let sent = Duration::from_nanos(sent.load(Ordering::Acquire));
        self.latencies.record(watcher, now.saturating_sub(sent));
        number + self.services
    }

    /// Returns the number of changes of a service that remain from `expected` on.
    fn left(&self, expected: u64) -> u64 {
        let last = self.sent.len() as u64 - 1;
        if expected > last { 0 } else { (last - expected) / self.services + 1 }
    }
}

/// A watcher of one service.
struct LoadWatcher {
    target: Arc<LoadTarget>,
    board: Arc<ChangeBoard>,
    service: u64,
    /// The number of the next change.
    expected: u64,
}

impl LoadWatcher {
    /// Watches until all changes or a timeout. Returns the number of missed changes.
    async fn run(mut self, watcher: usize, connection: BenchConnection, ready: &Semaphore) -> u64 {
        let service = self.target.plan.service(self.service);
        let call = self.target.protocol.watch(&self.target.plan.namespace, Some(&service));
        if let Ok(receiver) = connection.follow(call).await {
            // An error appears as missed changes.
            let _ = self.follow(watcher, receiver, ready).await;
        }
        self.left()
    }

    fn left(&self) -> u64 {
        self.board.left(self.expected)
    }

    async fn follow(
        &mut self,
        watcher: usize,
        mut receiver: StreamReceiver,
        ready: &Semaphore,
    ) -> Result<(), BenchCallError> {
        while self.left() > 0 {
            let Ok(message) = timeout(SEEN_MAX, receiver.next()).await else { break };
            let message = message?.ok_or(BenchCallError::InvalidResponse("the stream ended"))?;
            for seen in self.target.protocol.seen(message)? {
                match seen {
                    ObservedEvent::Ready => ready.add_permits(1),
                    ObservedEvent::Changed(number) => {
                        self.expected = self.board.see(watcher, self.expected, number);
                        self.target.progress.step();
                    }
                    ObservedEvent::Removed(_) => {}
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn missed_and_repeated_changes_are_counted() {
        let board = ChangeBoard::new(10, 2);
        board.send(1, Instant::now());
        let expected = board.see(0, 1, 1);
        assert_eq!((expected, board.left(expected)), (3, 4));
        // 3 and 5 are missed.
        let expected = board.see(0, expected, 7);
        assert_eq!((expected, counted(&board.missed)), (9, 2));
        assert_eq!(board.see(0, expected, 7), 9);
        assert_eq!(board.see(0, expected, 99), 9);
        assert_eq!(counted(&board.repeated), 2);
        assert_eq!(board.left(board.see(0, expected, 9)), 0);
    }
}
