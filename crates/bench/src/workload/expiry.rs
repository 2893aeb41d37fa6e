//! The workload `expiry`: many leases expire at once or within a short time. Measures how late each
//! removal arrives, and the effect on lookups.

use std::{io, sync::Arc, thread, time::Duration};

use clap::Args;
use tokio::{
    runtime,
    sync::oneshot,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{Load, resolve::expect};
use crate::{
    error::BenchCallError,
    error::BenchError,
    figures::Figures,
    load::callers::{CallResults, Callers, StopCondition},
    load::connection::{StreamReceiver, StreamSender},
    load::latencies::Latencies,
    plan::InstancePlan,
    population::{LEASES_A_MESSAGE, LONG_TTL, PausedRenewals, Population, send_renewals},
    progress::RunProgress,
    protocol::ObservedEvent,
    target::LoadTarget,
};

const CONNECTIONS: usize = 16;
/// Callers that look up services meanwhile.
const LOOKERS: usize = 32;
/// The instances that stay for each one that expires: enough that mass-expiry protection does not
/// start.
const STAYING: u64 = 3;
/// The time to wait for the last removal.
const GONE_MAX: Duration = Duration::from_secs(120);

/// Let many leases expire at once.
#[derive(Clone, Debug, Args)]
pub(crate) struct ExpiryLoad {
    /// Instances whose leases expire; three times as many stay in the same namespace.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    instances: u64,
    /// Instances of each service.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    a_service: u64,
    /// TTL of the expiring leases.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// Time over which they expire one by one; 0 for all at once.
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    within: Duration,
    /// Lookups a second, before and during the expiry.
    #[arg(long, default_value_t = 0.0)]
    lookups: f64,
}

/// The instances that stay.
pub(crate) struct SurvivingInstances {
    _population: Population,
}

impl Load for ExpiryLoad {
    type Ready = SurvivingInstances;

    const NAME: &'static str = "expiry";

    fn describe(&self) -> String {
        let Self { instances, ttl, within, lookups, .. } = self;
        let ttl = humantime::format_duration(*ttl);
        let when = match *within {
            Duration::ZERO => "at once".to_owned(),
            within => format!("within {}", humantime::format_duration(within)),
        };
        let lookups = match lookups {
            0.0 => String::new(),
            rate => format!(", beside {rate} lookups/s"),
        };
        let staying = instances * STAYING;
        format!("{instances} leases of {ttl} expire {when} among {staying} that stay{lookups}")
    }

    fn check(&self) -> Result<(), BenchError> {
        if self.within > self.ttl / 4 {
            // Lookups are measured between the last renewal and the first expiry.
            let why = "--within must be at most a quarter of --ttl";
            return Err(BenchError::Arguments(why.to_owned()));
        }
        Ok(())
    }

    fn plan(&self, namespace: String, payload: usize) -> InstancePlan {
        InstancePlan { namespace, per_service: self.a_service, payload }
    }

    fn limit_ttl_ms(&self) -> u64 {
        self.ttl.as_millis() as u64
    }

    async fn prepare(&self, target: &Arc<LoadTarget>) -> Result<SurvivingInstances, BenchError> {
        let connections = target.connect(CONNECTIONS).await?;
        let staying = self.staying();
        let _population = Population::register(target, &connections, staying, LONG_TTL).await?;
        Ok(SurvivingInstances { _population })
    }

    async fn round(
        &self,
        target: &Arc<LoadTarget>,
        _staying: &SurvivingInstances,
    ) -> Result<Figures, BenchError> {
        let failure = |source| BenchError::Call { what: "watching the namespace", source };
        let connections = target.connect(CONNECTIONS).await?;
        let dying = Population::register(target, &connections, 0..self.instances, self.ttl).await?;
        let follower = self.follower(target).await?;
        let (sent, _rest) = self.renew(target, &dying).await.map_err(failure)?;
        let (due, before) = (sent.times[0] + self.ttl, target.usage());
        target.progress.begin(format!("{}: removals", target.name));
        let gone = follower.follow(sent);
        let quiet = self.look(target, StopCondition::after(self.ttl.mul_f64(0.7))).await?;
        sleep_until(due).await;
        let stop = CancellationToken::new();
        let (gone, meanwhile) =
            tokio::join!(stopping(gone, &stop), self.look(target, StopCondition::stopped(&stop)));
        let (gone, meanwhile) = (gone?, meanwhile?);
        let time = gone.last.saturating_duration_since(due);
        let (server, load) = target.spent(before);

        let mut figures = Figures::default();
        let late = gone.late.sum();
        figures.push("throughput", "/s", late.len() as f64 / time.as_secs_f64());
        figures.push("all gone after", "ms", time.as_secs_f64() * 1000.0);
        figures.push_latencies(&late);
        figures.push("too early", "", gone.early as f64);
        figures.push("missed", "", (self.instances - gone.seen) as f64);
        figures.push("repeated", "", gone.repeated as f64);
        for (name, done) in [("lookups before", &quiet), ("lookups meanwhile", &meanwhile)] {
            if let Some(done) = done
                && !done.latencies.is_empty()
            {
                let p99 = done.latencies.value_at_quantile(0.99) as f64 / 1000.0;
                figures.push(name, "p99 ms", p99);
                figures.note_first(done.first_error.as_ref());
            }
        }
        let whole = sent_until(due, gone.last, self.ttl);
        figures.push_cost(server, load, whole, late.len());
        Ok(figures)
    }
}

/// Returns the time that the server's work spans: from the last renewal to the last removal.
fn sent_until(due: Instant, last: Instant, ttl: Duration) -> Duration {
    last.saturating_duration_since(due) + ttl
}

/// The times of the last renewals.
struct LastRenewals {
    times: Vec<Instant>,
    leases_a_message: usize,
}

impl LastRenewals {
    fn of(&self, nth: u64) -> Option<Instant> {
        self.times.get(nth as usize / self.leases_a_message).copied()
    }
}

/// The removals that the watch received.
struct Removals {
    /// The delay of each removal after its renewal plus the TTL.
    late: Latencies,
    seen: u64,
    early: u64,
    repeated: u64,
    last: Instant,
}

impl ExpiryLoad {
    /// Returns the instances that stay: whole services without an expiring instance.
    fn staying(&self) -> std::ops::Range<u64> {
        let first = self.instances.next_multiple_of(self.a_service);
        let count = (self.instances * STAYING).next_multiple_of(self.a_service);
        first..first + count
    }

    /// Watches the namespace on a thread of its own: reading a wave of removals must not delay the
    /// measured lookups.
    async fn follower(&self, target: &Arc<LoadTarget>) -> Result<RemovalWatcher, BenchError> {
        let (ready, is_ready) = oneshot::channel();
        let (sent, was_sent) = oneshot::channel();
        let (gone, are_gone) = oneshot::channel();
        let (target, expiry) = (Arc::clone(target), self.clone());
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(BenchError::Thread)?;
        let following = async move {
            let receiver = match expiry.watch(&target).await {
                Ok(receiver) => receiver,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let _waits = ready.send(Ok(()));
            if let Ok(sent) = was_sent.await {
                let _waits = gone.send(follow(&target, receiver, sent, &expiry).await);
            }
        };
        let run = move || runtime.block_on(following);
        thread::Builder::new().name("watch".into()).spawn(run).map_err(BenchError::Thread)?;
        let failure = |source| BenchError::Call { what: "watching the namespace", source };
        is_ready.await.map_err(|_| ended())?.map_err(failure)?;
        Ok(RemovalWatcher { sent, are_gone })
    }

    async fn watch(&self, target: &Arc<LoadTarget>) -> Result<StreamReceiver, BenchCallError> {
        let connection = target
            .connect(1)
            .await
            .map_err(|_| BenchCallError::InvalidResponse("no connection"))?;
        let call = target.protocol.watch(&target.plan.namespace, None);
        let mut receiver = connection[0].follow(call).await?;
        loop {
            let message = receiver
                .next()
                .await?
                .ok_or(BenchCallError::InvalidResponse("the stream ended"))?;
            if target.protocol.seen(message)?.contains(&ObservedEvent::Ready) {
                return Ok(receiver);
            }
        }
    }

    /// Renews all leases for the last time.
    async fn renew(
        &self,
        target: &Arc<LoadTarget>,
        dying: &Population,
    ) -> Result<(LastRenewals, Option<HeldStream>), BenchCallError> {
        if let Some(keeper) = dying.keeper() {
            let (times, rest) = keeper.renew_and_pause(self.within).await?;
            let leases_a_message = keeper.leases_a_message();
            return Ok((
                LastRenewals { times, leases_a_message },
                Some(HeldStream::PausedRenewals(rest)),
            ));
        }
        // The limit, which receives all leases here for the first time.
        let connection = target
            .connect(1)
            .await
            .map_err(|_| BenchCallError::InvalidResponse("no connection"))?;
        let stream = connection[0].stream(target.protocol.keep_alive_path()).await?;
        let (mut sender, receiver) = stream;
        let leases: Vec<u64> = (1..=self.instances).collect();
        let leases_a_message = LEASES_A_MESSAGE;
        let (times, _answers) =
            send_renewals(target, &mut sender, &leases, leases_a_message, self.within).await?;
        Ok((LastRenewals { times, leases_a_message }, Some(HeldStream::Stream(sender, receiver))))
    }

    /// Looks up services that stay, if lookups are requested.
    async fn look(
        &self,
        target: &Arc<LoadTarget>,
        end: StopCondition,
    ) -> Result<Option<CallResults>, BenchError> {
        if self.lookups <= 0.0 {
            end.wait().await;
            return Ok(None);
        }
        let connections = target.connect(CONNECTIONS).await?;
        let staying = self.staying();
        let (first, services) =
            (staying.start / self.a_service, (staying.end - staying.start) / self.a_service);
        let callers = Callers { callers: LOOKERS, rate: Some(self.lookups), end };
        let (looking, a_service) = (Arc::clone(target), self.a_service);
        let unseen = RunProgress::default();
        let done = callers.call(&connections, &unseen, move |connection, number: u64| {
            let target = Arc::clone(&looking);
            async move {
                let service = first + number * 7_919 % services;
                expect(target.resolve(&connection, service).await?, a_service)
            }
        });
        Ok(Some(done.await))
    }
}

/// A stream that stays open until all leases have expired: its end would expire them sooner.
#[expect(dead_code, reason = "held open: dropping them ends the stream")]
enum HeldStream {
    PausedRenewals(PausedRenewals),
    Stream(StreamSender, StreamReceiver),
}

/// A watch of the namespace that waits for the times of the last renewals.
struct RemovalWatcher {
    sent: oneshot::Sender<LastRenewals>,
    are_gone: oneshot::Receiver<Removals>,
}

impl RemovalWatcher {
    /// Starts to count removals.
    fn follow(self, sent: LastRenewals) -> oneshot::Receiver<Removals> {
        let _waits = self.sent.send(sent);
        self.are_gone
    }
}

fn ended() -> BenchError {
    BenchError::Thread(io::Error::other("it ended unexpectedly"))
}

async fn stopping(
    gone: oneshot::Receiver<Removals>,
    stop: &CancellationToken,
) -> Result<Removals, BenchError> {
    let gone = gone.await;
    stop.cancel();
    gone.map_err(|_| ended())
}

/// Receives removals until all have arrived or the time is over.
async fn follow(
    target: &LoadTarget,
    mut receiver: StreamReceiver,
    sent: LastRenewals,
    expiry: &ExpiryLoad,
) -> Removals {
    let last = *sent.times.last().unwrap_or(&sent.times[0]);
    let deadline = last + expiry.ttl + GONE_MAX;
    let mut is_gone = vec![false; expiry.instances as usize];
    let mut gone = Removals { late: Latencies::new(), seen: 0, early: 0, repeated: 0, last };
    while gone.seen < expiry.instances {
        let Ok(Ok(Some(message))) = timeout_at(deadline, receiver.next()).await else { break };
        let now = Instant::now();
        // An invalid message appears as missed removals.
        for seen in target.protocol.seen(message).unwrap_or_default() {
            let ObservedEvent::Removed(index) = seen else { continue };
            let Some((is_gone, sent)) = is_gone.get_mut(index as usize).zip(sent.of(index)) else {
                continue;
            };
            if std::mem::replace(is_gone, true) {
                gone.repeated += 1;
                continue;
            }
            let due = sent + expiry.ttl;
            gone.early += u64::from(now < due);
            gone.late.record(0, now.saturating_duration_since(due));
            gone.seen += 1;
            gone.last = now;
            target.progress.step();
        }
    }
    gone
}
