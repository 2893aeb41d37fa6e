//! The time at which a client's connection moves to renewed credentials. Pure: time and randomness
//! are passed in. Never moves all clients at once.

use std::time::Duration;

use crate::runtime::{backoff::Backoff, clock::Instant};

/// The longest delay between attempts to open a connection with renewed credentials.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The plan of one client.
#[derive(Debug)]
pub(crate) struct RenewalPlan {
    /// The time of the move; none while the credentials are those of the connection.
    at: Option<Instant>,
    retries: Backoff,
}

impl RenewalPlan {
    pub(crate) fn new() -> Self {
        Self { at: None, retries: Backoff::new(Duration::from_secs(1), RETRY_MAX) }
    }

    /// The credentials were replaced, `left` before their end. `random` is from 0 to 1.
    pub(crate) fn credentials_replaced(&mut self, left: Duration, now: Instant, random: f64) {
        let at = now + delay(left, random);
        // A move that is planned already takes the newest credentials.
        self.at = Some(self.at.map_or(at, |planned| planned.min(at)));
        self.retries.reset();
    }

    /// The time of the move; `None` if there is nothing to do.
    pub(crate) fn at(&self) -> Option<Instant> {
        self.at
    }

    /// The connection has moved, or there is none.
    pub(crate) fn done(&mut self) {
        self.at = None;
    }

    /// No connection could be opened with the new credentials. Returns whether that is the first
    /// failure since they were replaced.
    pub(crate) fn failed(&mut self, now: Instant, random: f64) -> bool {
        let first = self.retries.is_fresh();
        self.at = Some(now + self.retries.delay(0.5 + random / 2.0, None));
        first
    }
}

/// A random part of a third of what the replaced credentials had left.
fn delay(left: Duration, random: f64) -> Duration {
    (left / 3).mul_f64(random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    #[test]
    fn clients_move_within_a_third_and_at_most_a_tenth_of_them_in_one_second() {
        const CLIENTS: usize = 10_000;
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        // From 36 s on: in a shorter third there is no room for ten even seconds.
        for left in [36, 60, 600, 86_400] {
            let left = Duration::from_secs(left);
            let mut moves: Vec<_> = (0..CLIENTS).map(|_| delay(left, random.f64())).collect();
            moves.sort_unstable();
            assert!(moves[CLIENTS - 1] <= left / 3, "seed {seed}");
            let within_a_second = |first: &usize| {
                let end = moves[*first] + Duration::from_secs(1);
                moves[*first..].iter().take_while(|at| **at < end).count()
            };
            let most = (0..CLIENTS).map(|first| within_a_second(&first)).max().unwrap();
            assert!(most <= CLIENTS / 10, "seed {seed}: {most} within a second of {left:?}");
        }
    }

    #[test]
    fn credentials_that_have_ended_move_at_once() {
        let now = clock::now();
        let mut renewal = RenewalPlan::new();
        renewal.credentials_replaced(Duration::ZERO, now, 1.0);
        assert_eq!(renewal.at(), Some(now));
    }

    #[test]
    fn a_planned_move_is_never_postponed() {
        let now = clock::now();
        let mut renewal = RenewalPlan::new();
        renewal.credentials_replaced(Duration::from_secs(60), now, 0.5);
        assert_eq!(renewal.at(), Some(now + Duration::from_secs(10)));
        renewal.credentials_replaced(Duration::from_secs(600), now, 1.0);
        assert_eq!(renewal.at(), Some(now + Duration::from_secs(10)));
        renewal.credentials_replaced(Duration::from_secs(3), now, 1.0);
        assert_eq!(renewal.at(), Some(now + Duration::from_secs(1)));
        renewal.done();
        assert_eq!(renewal.at(), None);
    }

    #[test]
    fn attempts_back_off_and_only_the_first_failure_is_news() {
        let now = clock::now();
        let mut renewal = RenewalPlan::new();
        let mut delays = Vec::new();
        for round in 0..7 {
            assert_eq!(renewal.failed(now, 1.0), round == 0);
            delays.push((renewal.at().unwrap() - now).as_secs());
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);
        renewal.credentials_replaced(Duration::ZERO, now, 0.0);
        assert!(renewal.failed(now, 0.0));
    }
}
