//! The workload `heartbeat`: renewals of many leases over streams, spread evenly over their
//! interval.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::Load;
use crate::{
    error::BenchCallError,
    error::BenchError,
    figures::Figures,
    load::connection::{StreamReceiver, StreamSender},
    load::latencies::Latencies,
    load::pace::Pace,
    plan::InstancePlan,
    population::Population,
    target::{LoadTarget, counted},
};

/// The most unanswered heartbeats of a stream. At this limit the stream waits, and late heartbeats
/// count from their due time.
const IN_FLIGHT_MAX: usize = 4_096;
/// The time to wait for the last responses.
const ANSWERS_MAX: Duration = Duration::from_secs(10);

/// Renew the leases of many instances.
#[derive(Clone, Debug, Args)]
pub(crate) struct HeartbeatLoad {
    /// Connections, each with one stream of heartbeats.
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Instances, each with a lease of its own.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    instances: u64,
    /// Instances of each service.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    a_service: u64,
    /// Interval of renewals of each lease; its TTL is three times as long.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Leases that one message renews.
    #[arg(long, default_value_t = 1)]
    leases_a_message: usize,
    /// Duration of a round.
    #[arg(long, default_value = "15s", value_parser = humantime::parse_duration)]
    duration: Duration,
}

impl Load for HeartbeatLoad {
    type Ready = Population;

    const NAME: &'static str = "heartbeat";

    fn describe(&self) -> String {
        let Self { connections, instances, interval, leases_a_message, .. } = self;
        let interval = humantime::format_duration(*interval);
        format!(
            "{instances} instances every {interval} on {connections} connections, \
             {leases_a_message} to a message"
        )
    }

    fn plan(&self, namespace: String, payload: usize) -> InstancePlan {
        InstancePlan { namespace, per_service: self.a_service, payload }
    }

    async fn prepare(&self, target: &Arc<LoadTarget>) -> Result<Population, BenchError> {
        if self.leases_a_message == 0
            || self.leases_a_message > target.protocol.leases_a_message_max()
        {
            let most = target.protocol.leases_a_message_max();
            let why = format!("--leases-a-message must be between 1 and {most}");
            return Err(BenchError::Arguments(why));
        }
        let connections = target.connect(self.connections).await?;
        Population::register(target, &connections, 0..self.instances, self.interval * 3).await
    }

    async fn round(
        &self,
        target: &Arc<LoadTarget>,
        population: &Population,
    ) -> Result<Figures, BenchError> {
        let failure = |source| BenchError::Call { what: "opening streams of heartbeats", source };
        let connections = target.connect(self.connections).await?;
        let messages = self.messages(target, &population.leases());
        let mut streams = Vec::new();
        for connection in &*connections {
            let stream = connection.stream(target.protocol.keep_alive_path()).await;
            streams.push(stream.map_err(failure)?);
        }
        let rest = match population.keeper() {
            Some(keeper) => Some(keeper.renew_and_pause(Duration::ZERO).await.map_err(failure)?),
            None => None,
        };
        target.progress.begin(format!("{}: heartbeats", target.name));
        let count: usize = messages.iter().map(Vec::len).sum();
        let rate = count as f64 / self.interval.as_secs_f64();
        let tally = Arc::new(HeartbeatTally::default());
        let (begin, before) = (Instant::now(), target.usage());
        let mut tasks = JoinSet::new();
        let (turns, over) = (streams.len(), begin + self.duration);
        for (turn, ((sender, receiver), messages)) in streams.into_iter().zip(messages).enumerate()
        {
            let pace = Pace::new(begin, rate, turn, turns);
            let (sent, awaited) = mpsc::channel(IN_FLIGHT_MAX);
            tasks.spawn(send(sender, messages, pace, over, sent));
            tasks.spawn(receive(Arc::clone(target), receiver, turn, awaited, Arc::clone(&tally)));
        }
        let mut ended = Vec::new();
        while let Some(end) = tasks.join_next().await {
            ended.push(end.expect("no task panics"));
        }
        let time = begin.elapsed();
        let (server, load) = target.spent(before);
        drop(rest);
        if let Some(keeper) = population.keeper() {
            // Before the streams end that renewed them last.
            keeper.renew().await.map_err(failure)?;
        }
        let mut figures = Figures::default();
        let answered = tally.latencies.sum();
        figures.push("throughput", "/s", answered.len() as f64 / time.as_secs_f64());
        let renewed = answered.len() as f64 * self.leases_a_message as f64;
        figures.push("renewals", "/s", renewed / time.as_secs_f64());
        figures.push_latencies(&answered);
        figures.push("wrongly expired", "", counted(&tally.unknown) as f64);
        let errors: Vec<BenchCallError> =
            ended.iter_mut().filter_map(|TaskEnd { error, .. }| error.take()).collect();
        figures.push("errors", "", errors.len() as f64);
        figures.note_first(errors.first());
        figures.push_cost(server, load, time, answered.len());
        Ok(figures)
    }
}

impl HeartbeatLoad {
    /// Encodes the framed messages that each connection sends in turn.
    fn messages(&self, target: &LoadTarget, leases: &[AtomicU64]) -> Vec<Vec<Bytes>> {
        (0..self.connections)
            .map(|connection| {
                let own = leases.iter().skip(connection).step_by(self.connections);
                let own: Vec<u64> = own.map(|lease| lease.load(Ordering::Relaxed)).collect();
                let messages = own.chunks(self.leases_a_message);
                messages.map(|leases| target.protocol.keep_alive(leases)).collect()
            })
            .collect()
    }
}

#[derive(Debug)]
struct HeartbeatTally {
    latencies: Latencies,
    unknown: AtomicU64,
}

impl Default for HeartbeatTally {
    fn default() -> Self {
        Self { latencies: Latencies::new(), unknown: AtomicU64::new(0) }
    }
}

/// The result of a task. Its stream stays open until all tasks have ended.
struct TaskEnd {
    error: Option<BenchCallError>,
    _stream: StreamHalf,
}

#[expect(dead_code, reason = "held open: dropping them ends the stream")]
enum StreamHalf {
    Sender(StreamSender),
    Receiver(StreamReceiver),
}

async fn send(
    mut sender: StreamSender,
    messages: Vec<Bytes>,
    mut pace: Pace,
    over: Instant,
    sent: mpsc::Sender<Instant>,
) -> TaskEnd {
    let mut error = None;
    for message in messages.iter().cycle() {
        if pace.due() >= over {
            break;
        }
        // By the runtime's timer: heartbeats due within a millisecond are sent together, over all
        // streams.
        let is_late = pace.due() <= Instant::now();
        sleep_until(pace.due()).await;
        let due = pace.next().await;
        let begun = if is_late { due } else { Instant::now() };
        if let Err(failure) = sender.send(message.clone()) {
            error = Some(failure);
            break;
        }
        if sent.send(begun).await.is_err() {
            break;
        }
    }
    TaskEnd { error, _stream: StreamHalf::Sender(sender) }
}

async fn receive(
    target: Arc<LoadTarget>,
    mut receiver: StreamReceiver,
    turn: usize,
    mut awaited: mpsc::Receiver<Instant>,
    tally: Arc<HeartbeatTally>,
) -> TaskEnd {
    let mut error = None;
    while let Some(begun) = awaited.recv().await {
        match answer(&target, &mut receiver).await {
            Ok(unknown) => {
                tally.latencies.record(turn, begun.elapsed());
                tally.unknown.fetch_add(unknown, Ordering::Relaxed);
                target.progress.step();
            }
            Err(failure) => {
                error = Some(failure);
                break;
            }
        }
    }
    TaskEnd { error, _stream: StreamHalf::Receiver(receiver) }
}

async fn answer(target: &LoadTarget, receiver: &mut StreamReceiver) -> Result<u64, BenchCallError> {
    let answer = timeout(ANSWERS_MAX, receiver.next()).await;
    let answer = answer.map_err(|_| BenchCallError::InvalidResponse("no response"))??;
    target.protocol.unknown(answer.ok_or(BenchCallError::InvalidResponse("the stream ended"))?)
}
