//! Latencies, recorded from many tasks at once.

use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;

/// So many tasks rarely wait for each other.
const SHARDS: usize = 32;
/// What took longer is noted as if it had taken as long.
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

    /// Notes one that a task had.
    pub(crate) fn record(&self, task: usize, latency: Duration) {
        let micros = latency.min(LATENCY_MAX).as_micros() as u64;
        self.shards[task % SHARDS].lock().record(micros).expect("it grows as need be");
    }

    /// All together.
    pub(crate) fn sum(&self) -> Histogram<u64> {
        let mut sum = empty();
        for shard in &self.shards {
            sum.add(&*shard.lock()).expect("both grow as need be");
        }
        sum
    }
}

fn empty() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are few enough")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_task_had_is_in_the_sum() {
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
