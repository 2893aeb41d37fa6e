//! Callers: concurrent tasks that make one call after the other, and their results.

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

/// The pause after a failed call, so that refused callers do not flood the server.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// Callers that make the same kind of call.
#[derive(Clone, Debug)]
pub(crate) struct Callers {
    pub(crate) callers: usize,
    /// Calls a second in all, independent of responses; `None` for as many as are answered.
    pub(crate) rate: Option<f64>,
    pub(crate) end: StopCondition,
}

/// The stop condition of callers: the first of these.
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

    /// Waits for the time or the token, without callers.
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

/// The results of callers.
#[derive(Debug)]
pub(crate) struct CallResults {
    /// Latencies of successful calls, in microseconds.
    pub(crate) latencies: Histogram<u64>,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<BenchCallError>,
    pub(crate) time: Duration,
}

impl CallResults {
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.time.as_secs_f64()
    }

    /// Adds the figures that every workload of callers reports.
    pub(crate) fn push_to(&self, figures: &mut Figures) {
        figures.push("throughput", "/s", self.rate());
        figures.push_latencies(&self.latencies);
        figures.push("errors", "", self.errors as f64);
        figures.note_first(self.first_error.as_ref());
    }

    /// Returns the first error, for calls that other work depends on.
    pub(crate) fn expect_success(self, what: &'static str) -> Result<(), BenchError> {
        match self.first_error {
            Some(source) => Err(BenchError::Call { what, source }),
            None => Ok(()),
        }
    }
}

impl Callers {
    /// Makes calls over the connections in turn until the stop condition. `act` receives the number
    /// of its call.
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
        let shared = Arc::new(SharedCalls {
            connections: Arc::clone(connections),
            progress: progress.clone(),
            callers,
            begin,
            end,
            next: AtomicU64::new(0),
            latencies: Latencies::new(),
            errors: AtomicU64::new(0),
            first_error: Mutex::new(None),
        });
        let mut tasks = JoinSet::new();
        for caller in 0..callers {
            let pace = rate.map(|rate| Pace::new(begin, rate, caller, callers));
            let (shared, act) = (Arc::clone(&shared), act.clone());
            tasks.spawn(async move { shared.run(caller, pace, act).await });
        }
        tasks.join_all().await;
        CallResults {
            latencies: shared.latencies.sum(),
            errors: shared.errors.load(Ordering::Relaxed),
            first_error: shared.first_error.lock().take(),
            time: begin.elapsed(),
        }
    }
}

/// The state that callers share.
struct SharedCalls {
    connections: Arc<[BenchConnection]>,
    progress: RunProgress,
    callers: usize,
    begin: Instant,
    end: StopCondition,
    /// The number of the next call.
    next: AtomicU64,
    latencies: Latencies,
    errors: AtomicU64,
    first_error: Mutex<Option<BenchCallError>>,
}

impl SharedCalls {
    /// Runs one caller.
    async fn run<F>(
        &self,
        caller: usize,
        mut pace: Option<Pace>,
        act: impl Fn(BenchConnection, u64) -> F,
    ) where
        F: Future<Output = Result<(), BenchCallError>>,
    {
        let mut turn = caller;
        let over = self.end.time.map(|time| self.begin + time);
        let mut begun = Instant::now();
        loop {
            let due = pace.as_ref().map_or(begun, Pace::due);
            if over.is_some_and(|over| due >= over) || self.end.stop.is_cancelled() {
                break;
            }
            if let Some(pace) = &mut pace {
                begun = pace.next().await;
            }
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if self.end.count.is_some_and(|count| number >= count) {
                break;
            }
            let connection = self.connections[turn % self.connections.len()].clone();
            // Another connection for each call, if there are more connections than callers.
            turn += self.callers;
            let result = act(connection, number).await;
            let answered = Instant::now();
            match result {
                Ok(()) => self.latencies.record(caller, answered - begun),
                Err(error) => {
                    self.errors.fetch_add(1, Ordering::Relaxed);
                    self.first_error.lock().get_or_insert(error);
                    sleep(ERROR_PAUSE).await;
                }
            }
            self.progress.step();
            begun = answered;
        }
    }
}
