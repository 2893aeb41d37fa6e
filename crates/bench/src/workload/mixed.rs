//! The workload `mixed`: many clients whose instances heartbeat, register again and are looked up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clap::Args;
use tokio::{
    task::JoinSet,
    time::{Instant, interval_at},
};

use super::{Load, resolve::expect};
use crate::{
    error::BenchCallError,
    error::BenchError,
    figures::Figures,
    load::callers::{CallResults, Callers, StopCondition},
    load::connection::{BenchConnection, StreamReceiver, StreamSender},
    plan::InstancePlan,
    population::{LONG_TTL, Population},
    target::{LoadTarget, counted},
};

/// The most concurrent calls of one kind; delayed calls count from their due time.
const CALLERS: usize = 256;

/// Run registrations, lookups and heartbeats of many clients at once, at a constant rate.
#[derive(Clone, Debug, Args)]
pub(crate) struct MixedLoad {
    /// Clients, each with a connection and a stream of heartbeats.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    clients: u64,
    /// Instances in all.
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..))]
    instances: u64,
    /// Services.
    #[arg(long, default_value_t = 1_500, value_parser = clap::value_parser!(u64).range(1..))]
    services: u64,
    /// Registrations a second, of registered instances with new content, so that each is a change.
    #[arg(long, default_value_t = 5_000.0)]
    registrations: f64,
    /// Lookups a second.
    #[arg(long, default_value_t = 10_000.0)]
    lookups: f64,
    /// Interval of renewals of each lease.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Duration of a round.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
}

impl Load for MixedLoad {
    type Ready = ();

    const FRESH: bool = true;
    const NAME: &'static str = "mixed";

    fn describe(&self) -> String {
        let Self { clients, instances, services, registrations, lookups, .. } = self;
        format!(
            "{registrations} registrations/s and {lookups} lookups/s of {clients} clients, \
             {instances} instances in {services} services"
        )
    }

    fn check(&self) -> Result<(), BenchError> {
        let why = if !self.instances.is_multiple_of(self.services) {
            "--instances must be a multiple of --services"
        } else if self.registrations <= 0.0 || self.lookups <= 0.0 {
            "--registrations and --lookups must be greater than 0"
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
        let connections = target.connect(self.clients as usize).await?;
        let population =
            Population::register(target, &connections, 0..self.instances, LONG_TTL).await?;
        let failure = |source| BenchError::Call { what: "opening streams of heartbeats", source };
        let clients = HeartbeatClients::open(self, target, &connections, population.leases()).await;
        let clients = clients.map_err(failure)?;
        target.progress.begin(format!("{}: registrations, lookups", target.name));
        let (begin, before) = (Instant::now(), target.usage());
        let heartbeats = clients.run(self, target, begin);
        let registrations = self.register(target, &connections, population.leases());
        let lookups = self.look(target, &connections);
        let (heartbeats, registrations, lookups) = tokio::join!(heartbeats, registrations, lookups);
        let time = begin.elapsed();
        let (server, load) = target.spent(before);

        let mut all = registrations.latencies.clone();
        all.add(&lookups.latencies).expect("the histogram resizes");
        let mut figures = Figures::default();
        figures.push("throughput", "/s", all.len() as f64 / time.as_secs_f64());
        figures.push_latencies(&all);
        for (name, done) in [("registrations", &registrations), ("lookups", &lookups)] {
            figures.push(name, "/s", done.rate());
            let p99 = done.latencies.value_at_quantile(0.99) as f64 / 1000.0;
            figures.push(
                if name == "lookups" { "lookups p99" } else { "registrations p99" },
                "ms",
                p99,
            );
            figures.note_first(done.first_error.as_ref());
        }
        figures.push("heartbeats", "/s", heartbeats.answered as f64 / time.as_secs_f64());
        figures.push("unknown leases", "", heartbeats.unknown as f64);
        let errors = registrations.errors + lookups.errors + heartbeats.errors;
        figures.push("errors", "", errors as f64);
        figures.push_cost(server, load, time, all.len());
        Ok(figures)
    }
}

impl MixedLoad {
    async fn register(
        &self,
        target: &Arc<LoadTarget>,
        connections: &Arc<[BenchConnection]>,
        leases: Arc<[AtomicU64]>,
    ) -> CallResults {
        let end = StopCondition::after(self.duration);
        let callers = Callers { callers: CALLERS, rate: Some(self.registrations), end };
        let (registering, instances) = (Arc::clone(target), self.instances);
        let call = move |connection, number: u64| {
            let (target, leases) = (Arc::clone(&registering), Arc::clone(&leases));
            async move {
                let index = number * 7_919 % instances;
                let lease = target.register(&connection, index, number + 1, LONG_TTL).await?;
                leases[index as usize].store(lease, Ordering::Relaxed);
                Ok(())
            }
        };
        callers.call(connections, &target.progress, call).await
    }

    async fn look(
        &self,
        target: &Arc<LoadTarget>,
        connections: &Arc<[BenchConnection]>,
    ) -> CallResults {
        let end = StopCondition::after(self.duration);
        let callers = Callers { callers: CALLERS, rate: Some(self.lookups), end };
        let (looking, services, a_service) =
            (Arc::clone(target), self.services, target.plan.per_service);
        let call = move |connection, number: u64| {
            let target = Arc::clone(&looking);
            async move {
                expect(target.resolve(&connection, number * 7_919 % services).await?, a_service)
            }
        };
        callers.call(connections, &target.progress, call).await
    }
}

/// The heartbeat streams of the clients.
struct HeartbeatClients {
    streams: Vec<(StreamSender, StreamReceiver)>,
    leases: Arc<[AtomicU64]>,
}

#[derive(Debug, Default)]
struct HeartbeatCounts {
    answered: u64,
    unknown: u64,
    errors: u64,
}

impl HeartbeatClients {
    async fn open(
        mixed: &MixedLoad,
        target: &Arc<LoadTarget>,
        connections: &Arc<[BenchConnection]>,
        leases: Arc<[AtomicU64]>,
    ) -> Result<Self, BenchCallError> {
        let mut streams = Vec::new();
        // Clients beyond the number of instances have no lease to renew.
        for connection in connections.iter().take(mixed.instances as usize) {
            streams.push(connection.stream(target.protocol.keep_alive_path()).await?);
        }
        // A stream is open once it has responded: opening is not part of the load.
        let clients = streams.len();
        for (client, stream) in streams.iter_mut().enumerate() {
            let own = own(&leases, client, clients);
            for own in own.chunks(target.protocol.leases_a_message_max()) {
                renew(target, stream, own).await?;
            }
        }
        Ok(Self { streams, leases })
    }

    /// Renews the leases of each client once in an interval.
    async fn run(
        self,
        mixed: &MixedLoad,
        target: &Arc<LoadTarget>,
        begin: Instant,
    ) -> HeartbeatCounts {
        let over = begin + mixed.duration;
        let clients = self.streams.len();
        let turn = mixed.interval.div_f64(clients as f64);
        let sums: Arc<[AtomicU64; 3]> = Arc::default();
        let mut tasks = JoinSet::new();
        for (client, mut stream) in self.streams.into_iter().enumerate() {
            let mut due = interval_at(begin + turn.mul_f64(client as f64), mixed.interval);
            let (target, sums) = (Arc::clone(target), Arc::clone(&sums));
            let leases = Arc::clone(&self.leases);
            tasks.spawn(async move {
                while due.tick().await < over {
                    let own = own(&leases, client, clients);
                    for own in own.chunks(target.protocol.leases_a_message_max()) {
                        match renew(&target, &mut stream, own).await {
                            Ok(unknown) => {
                                sums[0].fetch_add(1, Ordering::Relaxed);
                                sums[1].fetch_add(unknown, Ordering::Relaxed);
                            }
                            Err(_) => {
                                sums[2].fetch_add(1, Ordering::Relaxed);
                                return stream;
                            }
                        }
                    }
                }
                stream
            });
        }
        // The streams end together, after the round.
        tasks.join_all().await;
        let [answered, unknown, errors] = [0, 1, 2].map(|sum| counted(&sums[sum]));
        HeartbeatCounts { answered, unknown, errors }
    }
}

/// Returns the leases that one of the clients renews.
fn own(leases: &[AtomicU64], client: usize, clients: usize) -> Vec<u64> {
    leases.iter().skip(client).step_by(clients).map(|lease| lease.load(Ordering::Relaxed)).collect()
}

async fn renew(
    target: &LoadTarget,
    (sender, receiver): &mut (StreamSender, StreamReceiver),
    leases: &[u64],
) -> Result<u64, BenchCallError> {
    sender.send(target.protocol.keep_alive(leases))?;
    let answer =
        receiver.next().await?.ok_or(BenchCallError::InvalidResponse("the stream ended"))?;
    target.protocol.unknown(answer)
}
