//! The results of requests: in total, and in the latest second.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

/// The longest time that is measured, in microseconds.
const TOOK_MAX_US: u64 = 60_000_000;

/// The figures of a time.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// Requests, by whether they are idempotent.
    pub(crate) idempotent: u64,
    pub(crate) others: u64,
    /// Failed requests that may be repeated.
    pub(crate) failed_idempotent: u64,
    pub(crate) failed_others: u64,
    /// Attempts that the gateway made beyond the first.
    pub(crate) sent_again: u64,
    /// By the ids of replicas.
    pub(crate) replicas: BTreeMap<String, Replica>,
    /// From the request to the end of its response, in microseconds.
    took: Histogram<u64>,
}

/// The requests of one replica.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Replica {
    pub(crate) answers: u64,
    /// Requests that failed, and were sent to it last.
    pub(crate) errors: u64,
}

/// The replay of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Idempotent,
    Other,
}

/// Counts. Clones share the figures.
#[derive(Clone)]
pub(crate) struct Tally {
    counted: Arc<Mutex<Counted>>,
    reading: Duration,
}

struct Counted {
    total: Figures,
    /// Since the latest reading.
    current: Figures,
    /// At the latest reading.
    latest: Figures,
    read_at: Instant,
    readings: u64,
}

impl Figures {
    fn new() -> Self {
        Self {
            idempotent: 0,
            others: 0,
            failed_idempotent: 0,
            failed_others: 0,
            sent_again: 0,
            replicas: BTreeMap::new(),
            took: Histogram::new_with_max(TOOK_MAX_US, 3).expect("the bounds are constants"),
        }
    }

    pub(crate) fn requests(&self) -> u64 {
        self.idempotent + self.others
    }

    pub(crate) fn replica(&self, id: &str) -> Replica {
        self.replicas.get(id).copied().unwrap_or_default()
    }

    /// A quantile of the response times, in milliseconds.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        Duration::from_micros(self.took.value_at_quantile(share)).as_secs_f64() * 1e3
    }
}

impl Tally {
    /// Figures of the latest `reading`, and of all.
    pub(crate) fn new(reading: Duration) -> Self {
        let [total, current, latest] = std::array::from_fn(|_| Figures::new());
        let counted = Counted { total, current, latest, read_at: Instant::now(), readings: 0 };
        Self { counted: Arc::new(Mutex::new(counted)), reading }
    }

    /// A request got the right response, from these replicas.
    pub(crate) fn answered(&self, kind: Kind, took: Duration, by: [&str; 2]) {
        self.count(kind, |figures| {
            figures.took.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
            for id in by {
                figures.replicas.entry(id.to_owned()).or_default().answers += 1;
            }
        });
    }

    pub(crate) fn failed(&self, kind: Kind) {
        self.count(kind, |figures| match kind {
            Kind::Idempotent => figures.failed_idempotent += 1,
            Kind::Other => figures.failed_others += 1,
        });
    }

    fn count(&self, kind: Kind, also: impl Fn(&mut Figures)) {
        self.lock().each(|figures| {
            match kind {
                Kind::Idempotent => figures.idempotent += 1,
                Kind::Other => figures.others += 1,
            }
            also(figures);
        });
    }

    /// The gateway sent a request more than once.
    pub(crate) fn sent_again(&self, times: u64) {
        self.lock().each(|figures| figures.sent_again += times);
    }

    /// The gateway's access log names this replica for a failure.
    pub(crate) fn blamed(&self, id: &str) {
        self.lock().each(|figures| figures.replicas.entry(id.to_owned()).or_default().errors += 1);
    }

    pub(crate) fn total(&self) -> Figures {
        self.lock().total.clone()
    }

    /// The figures of the latest reading that is over, and its number; the first is 1.
    pub(crate) fn latest(&self) -> (u64, Figures) {
        let mut counted = self.lock();
        if counted.read_at.elapsed() >= self.reading {
            counted.latest = mem::replace(&mut counted.current, Figures::new());
            counted.read_at += self.reading;
            counted.readings += 1;
        }
        (counted.readings, counted.latest.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    fn each(&mut self, count: impl Fn(&mut Figures)) {
        count(&mut self.total);
        count(&mut self.current);
    }
}
