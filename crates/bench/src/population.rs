//! The instances that a workload works on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::{
    error::BenchCallError,
    error::BenchError,
    load::callers::{Callers, StopCondition},
    load::connection::{BenchConnection, StreamReceiver, StreamSender},
    load::pace::Pace,
    target::LoadTarget,
};

/// Callers that register what a workload works on, and remove it.
const CALLERS: usize = 64;
/// Leases in one message at most of who renews them all.
pub(crate) const LEASES_A_MESSAGE: usize = 1_000;
/// The longest TTL that there is: nobody has to renew what is looked at for a few minutes.
pub(crate) const LONG_TTL: Duration = Duration::from_secs(300);

/// Instances that are registered, by their index.
#[derive(Debug)]
pub(crate) struct Population {
    leases: Arc<[AtomicU64]>,
    _keeping: Option<KeepAliveTask>,
    keeper: Option<Arc<LeaseKeeper>>,
}

impl Population {
    /// Registers instances. Where the TTL is not the longest, they are kept alive until the population
    /// is dropped.
    pub(crate) async fn register(
        target: &Arc<LoadTarget>,
        connections: &Arc<[BenchConnection]>,
        instances: std::ops::Range<u64>,
        ttl: Duration,
    ) -> Result<Self, BenchError> {
        let count = instances.end - instances.start;
        if target.is_limit {
            // It would answer whatever it is asked.
            let leases = instances.map(|index| AtomicU64::new(index + 1)).collect();
            return Ok(Self { leases, keeper: None, _keeping: None });
        }
        let leases: Arc<[AtomicU64]> = (0..count).map(|_| AtomicU64::new(0)).collect();
        let keeper = if ttl < LONG_TTL {
            Some(LeaseKeeper::open(target, connections, &leases).await?)
        } else {
            None
        };
        let keeping = keeper.as_ref().map(|keeper| keeper.keep(ttl / 4));
        target.progress.begin(format!("{}: registering {count} instances", target.name));
        let callers = Callers { callers: CALLERS, rate: None, end: StopCondition::count(count) };
        let (registering, granted) = (Arc::clone(target), Arc::clone(&leases));
        let first = instances.start;
        let done = callers
            .call(connections, &target.progress, move |connection, nth| {
                let (target, leases) = (Arc::clone(&registering), Arc::clone(&granted));
                async move {
                    let lease = target.register(&connection, first + nth, 0, ttl).await?;
                    leases[nth as usize].store(lease, Ordering::Relaxed);
                    Ok(())
                }
            })
            .await;
        done.all_went_well("registering instances")?;
        Ok(Self { leases, _keeping: keeping, keeper })
    }

    /// The lease of the nth of them.
    pub(crate) fn lease(&self, nth: u64) -> &AtomicU64 {
        &self.leases[nth as usize]
    }

    pub(crate) fn leases(&self) -> Arc<[AtomicU64]> {
        Arc::clone(&self.leases)
    }

    /// Who keeps them alive, where somebody has to.
    pub(crate) fn keeper(&self) -> Option<&LeaseKeeper> {
        self.keeper.as_deref()
    }
}

/// Renews all leases of a population over one stream.
#[derive(Debug)]
pub(crate) struct LeaseKeeper {
    stream: Arc<Mutex<(StreamSender, StreamReceiver)>>,
    leases: Arc<[AtomicU64]>,
    target: Arc<LoadTarget>,
}

/// Keeps a population alive until it is dropped.
#[derive(Debug)]
struct KeepAliveTask(JoinHandle<()>);

impl Drop for KeepAliveTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl LeaseKeeper {
    async fn open(
        target: &Arc<LoadTarget>,
        connections: &Arc<[BenchConnection]>,
        leases: &Arc<[AtomicU64]>,
    ) -> Result<Arc<Self>, BenchError> {
        let stream = connections[0].stream(target.protocol.keep_alive_path()).await;
        let stream = stream.map_err(|source| BenchError::Call { what: "keeping alive", source })?;
        let (stream, leases) = (Arc::new(Mutex::new(stream)), Arc::clone(leases));
        Ok(Arc::new(Self { stream, leases, target: Arc::clone(target) }))
    }

    fn keep(self: &Arc<Self>, interval: Duration) -> KeepAliveTask {
        let keeper = Arc::clone(self);
        KeepAliveTask(tokio::spawn(async move {
            // A stream that breaks shows where its leases are counted.
            while keeper.renew().await.is_ok() {
                sleep(interval).await;
            }
        }))
    }

    /// Renews all at once.
    pub(crate) async fn renew(&self) -> Result<(), BenchCallError> {
        self.renew_over(&mut *self.stream.lock().await, Duration::ZERO).await.map(drop)
    }

    /// Renews all, one after the other within so long, and rests from then on, for as long as the second
    /// of what is returned lives: the stream stays open. The first is for each message the moment before
    /// it was sent, in the order of the leases, of which [`Self::leases_a_message`] are in each.
    pub(crate) async fn renew_and_pause(
        &self,
        within: Duration,
    ) -> Result<(Vec<Instant>, PausedRenewals), BenchCallError> {
        let mut stream = Arc::clone(&self.stream).lock_owned().await;
        let sent = self.renew_over(&mut stream, within).await?;
        Ok((sent, stream))
    }

    async fn renew_over(
        &self,
        stream: &mut (StreamSender, StreamReceiver),
        within: Duration,
    ) -> Result<Vec<Instant>, BenchCallError> {
        let (sender, receiver) = stream;
        // Those that are not registered by now are 0.
        let leases: Vec<u64> = self.leases.iter().map(|it| it.load(Ordering::Relaxed)).collect();
        let (sent, awaited) =
            send_renewals(&self.target, sender, &leases, self.leases_a_message(), within).await?;
        for _ in 0..awaited {
            receiver.next().await?.ok_or(BenchCallError::Nonsense("the stream ended"))?;
        }
        Ok(sent)
    }

    pub(crate) fn leases_a_message(&self) -> usize {
        LEASES_A_MESSAGE.min(self.target.protocol.leases_a_message_max())
    }
}

/// Sends renewals of the leases that are not 0, one message after the other within so long. Returns for
/// each message the moment before it was sent, and how many answers are to come.
pub(crate) async fn send_renewals(
    target: &LoadTarget,
    sender: &mut StreamSender,
    leases: &[u64],
    leases_a_message: usize,
    within: Duration,
) -> Result<(Vec<Instant>, usize), BenchCallError> {
    let messages = leases.chunks(leases_a_message);
    let mut pace = Pace::within(within, messages.len());
    let (mut sent, mut awaited) = (Vec::new(), 0);
    for some in messages {
        pace.next().await;
        let some: Vec<u64> = some.iter().copied().filter(|lease| *lease != 0).collect();
        sent.push(Instant::now());
        if !some.is_empty() {
            sender.send(target.protocol.keep_alive(&some))?;
            awaited += 1;
        }
    }
    Ok((sent, awaited))
}

/// Nothing is renewed for as long as this lives.
pub(crate) type PausedRenewals = OwnedMutexGuard<(StreamSender, StreamReceiver)>;
