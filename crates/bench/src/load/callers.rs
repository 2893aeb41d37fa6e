//! Callers: tasks that call one after the other, for a while, and what they had.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    error::BenchCallError, error::BenchError, figures::Figures, load::connection::BenchConnection,
    load::latencies::Latencies, load::pace::Pace, progress::RunProgress,
};

/// After a call that failed, so that who is refused does not do nothing but ask.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// Callers that do the same.
#[derive(Clone, Debug)]
pub(crate) struct Callers {
    pub(crate) callers: usize,
    /// Calls a second in all, whether they are answered or not; nothing: as many as are answered.
    pub(crate) rate: Option<f64>,
    pub(crate) end: StopCondition,
}

/// When they end: at whatever comes first.
#[derive(Clone, Debug)]
pub(crate) struct StopCondition {
    pub(crate) time: Option<Duration>,
    pub(crate) count: Option<u64>,
    pub(crate) stop: CancellationToken,
}

impl StopCondition {
    pub(crate) fn after(time: Duration) -> Self {
        Self { time: Some(time), count: None, stop: CancellationToken::new() }
    }

    pub(crate) fn count(count: u64) -> Self {
        Self { time: None, count: Some(count), stop: CancellationToken::new() }
    }

    /// Waits for it where nobody calls.
    pub(crate) async fn wait(&self) {
        match self.time {
            Some(time) => sleep(time).await,
            None => self.stop.cancelled().await,
        }
    }

    pub(crate) fn stopped(stop: &CancellationToken) -> Self {
        Self { time: None, count: None, stop: stop.clone() }
    }
}

/// What callers had.
#[derive(Debug)]
pub(crate) struct CallResults {
    /// Of the calls that went well, in microseconds.
    pub(crate) latencies: Histogram<u64>,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<BenchCallError>,
    pub(crate) time: Duration,
}

impl CallResults {
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.time.as_secs_f64()
    }

    /// What every workload of callers tells.
    pub(crate) fn push_to(&self, figures: &mut Figures) {
        figures.push("throughput", "/s", self.rate());
        figures.push_latencies(&self.latencies);
        figures.push("errors", "", self.errors as f64);
        figures.note_first(self.first_error.as_ref());
    }

    /// For what other work stands on.
    pub(crate) fn all_went_well(self, what: &'static str) -> Result<(), BenchError> {
        match self.first_error {
            Some(source) => Err(BenchError::Call { what, source }),
            None => Ok(()),
        }
    }
}

impl Callers {
    /// Calls over the connections, in turns, until the end: each call is told its number.
    pub(crate) async fn call<F>(
        self,
        connections: &Arc<[BenchConnection]>,
        progress: &RunProgress,
        act: impl Fn(BenchConnection, u64) -> F + Clone + Send + 'static,
    ) -> CallResults
    where
        F: Future<Output = Result<(), BenchCallError>> + Send,
    {
        let Self { callers, rate, end } = self;
        let begin = Instant::now();
        let latencies = Arc::new(Latencies::new());
        let errors = Arc::new((AtomicU64::new(0), Mutex::new(None)));
        let next = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for caller in 0..callers {
            let mut pace = rate.map(|rate| Pace::new(begin, rate, caller, callers));
            let (connections, progress) = (Arc::clone(connections), progress.clone());
            let (latencies, errors) = (Arc::clone(&latencies), Arc::clone(&errors));
            let (next, end, act) = (Arc::clone(&next), end.clone(), act.clone());
            tasks.spawn(async move {
                let mut turn = caller;
                let over = end.time.map(|time| begin + time);
                let mut begun = Instant::now();
                loop {
                    let due = pace.as_ref().map_or(begun, Pace::due);
                    if over.is_some_and(|over| due >= over) || end.stop.is_cancelled() {
                        break;
                    }
                    if let Some(pace) = &mut pace {
                        begun = pace.next().await;
                    }
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if end.count.is_some_and(|count| number >= count) {
                        break;
                    }
                    let connection = connections[turn % connections.len()].clone();
                    // Another one each time, where there are more of them than callers.
                    turn += callers;
                    let answer = act(connection, number).await;
                    let answered = Instant::now();
                    match answer {
                        Ok(()) => latencies.record(caller, answered - begun),
                        Err(error) => {
                            errors.0.fetch_add(1, Ordering::Relaxed);
                            errors.1.lock().get_or_insert(error);
                            sleep(ERROR_PAUSE).await;
                        }
                    }
                    progress.step();
                    begun = answered;
                }
            });
        }
        tasks.join_all().await;
        CallResults {
            latencies: latencies.sum(),
            errors: errors.0.load(Ordering::Relaxed),
            first_error: errors.1.lock().take(),
            time: begin.elapsed(),
        }
    }
}
