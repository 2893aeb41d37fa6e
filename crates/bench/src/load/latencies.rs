//! A histogram that many tasks record to.

use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;

/// The number of shards, by which tasks rarely wait for each other.
const SHARDS: usize = 32;
/// The largest recorded latency; longer ones count as this.
const LATENCY_MAX: Duration = Duration::from_secs(3_600);

/// A histogram of latencies in microseconds, exact to three digits.
#[derive(Debug)]
pub(crate) struct Latencies {
    shards: Box<[Mutex<Histogram<u64>>]>,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::new(empty())).collect() }
    }

    /// Records a latency of a task.
    pub(crate) fn record(&self, task: usize, latency: Duration) {
        let micros = latency.min(LATENCY_MAX).as_micros() as u64;
        self.shards[task % SHARDS].lock().record(micros).expect("the histogram resizes");
    }

    /// Returns the sum of all shards.
    pub(crate) fn sum(&self) -> Histogram<u64> {
        let mut sum = empty();
        for shard in &self.shards {
            sum.add(&*shard.lock()).expect("the histogram resizes");
        }
        sum
    }
}

fn empty() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are supported")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sum_has_the_latencies_of_every_task() {
        let latencies = Latencies::new();
        for task in 0..100 {
            latencies.record(task, Duration::from_millis(task as u64 + 1));
        }
        let sum = latencies.sum();
        assert_eq!(sum.len(), 100);
        assert!((49_900..=50_100).contains(&sum.value_at_quantile(0.5)));
        assert!((99_900..=100_100).contains(&sum.max()));
    }
}
