//! The instances that a workload uses, and the renewal of their leases.

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

/// Callers that register and deregister the instances.
const CALLERS: usize = 64;
/// The most leases in one message of a [`LeaseKeeper`].
pub(crate) const LEASES_A_MESSAGE: usize = 1_000;
/// The longest TTL: a workload of a few minutes needs no renewals.
pub(crate) const LONG_TTL: Duration = Duration::from_secs(300);

/// Registered instances, by index.
#[derive(Debug)]
pub(crate) struct Population {
    leases: Arc<[AtomicU64]>,
    _keeping: Option<KeepAliveTask>,
    keeper: Option<Arc<LeaseKeeper>>,
}

impl Population {
    /// Registers instances. Renews their leases until the population is dropped, unless the TTL is
    /// the longest.
    pub(crate) async fn register(
        target: &Arc<LoadTarget>,
        connections: &Arc<[BenchConnection]>,
        instances: std::ops::Range<u64>,
        ttl: Duration,
    ) -> Result<Self, BenchError> {
        let count = instances.end - instances.start;
        if target.is_limit {
            // The limit has no registry.
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
        done.expect_success("registering instances")?;
        Ok(Self { leases, _keeping: keeping, keeper })
    }

    /// Returns the lease of the nth instance.
    pub(crate) fn lease(&self, nth: u64) -> &AtomicU64 {
        &self.leases[nth as usize]
    }

    pub(crate) fn leases(&self) -> Arc<[AtomicU64]> {
        Arc::clone(&self.leases)
    }

    /// Returns the keeper, if the leases need renewals.
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

/// The task that renews a population's leases until dropped.
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
            // A broken stream appears in the counts of its leases.
            while keeper.renew().await.is_ok() {
                sleep(interval).await;
            }
        }))
    }

    /// Renews all leases at once.
    pub(crate) async fn renew(&self) -> Result<(), BenchCallError> {
        self.renew_over(&mut *self.stream.lock().await, Duration::ZERO).await.map(drop)
    }

    /// Renews all leases, spread over `within`, then pauses while the returned guard lives: the
    /// stream stays open. Returns the instant before each message was sent, in the order of the
    /// leases, with [`Self::leases_a_message`] in each.
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
        // 0 for those that are not registered yet.
        let leases: Vec<u64> = self.leases.iter().map(|it| it.load(Ordering::Relaxed)).collect();
        let (sent, awaited) =
            send_renewals(&self.target, sender, &leases, self.leases_a_message(), within).await?;
        for _ in 0..awaited {
            receiver.next().await?.ok_or(BenchCallError::InvalidResponse("the stream ended"))?;
        }
        Ok(sent)
    }

    pub(crate) fn leases_a_message(&self) -> usize {
        LEASES_A_MESSAGE.min(self.target.protocol.leases_a_message_max())
    }
}

/// Sends renewals of the leases that are not 0, in messages spread over `within`. Returns the
/// instant before each message was sent, and the number of responses to expect.
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

/// A guard that pauses renewals.
pub(crate) type PausedRenewals = OwnedMutexGuard<(StreamSender, StreamReceiver)>;
