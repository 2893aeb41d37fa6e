//! A timer that goes off on time. The runtime's own counts in whole milliseconds and is late by one or
//! two, which is more than much of what is measured.

use std::{collections::BTreeMap, sync::LazyLock, thread};

use parking_lot::{Condvar, Mutex};
use tokio::{sync::oneshot, time::Instant};

static TIMER: LazyLock<Timer> = LazyLock::new(|| {
    thread::Builder::new().name("timer".into()).spawn(run).expect("there can be one more thread");
    Timer::default()
});

/// One thread for all who wait. It is woken only for who is due before everybody else.
#[derive(Debug, Default)]
struct Timer {
    alarms: Mutex<Alarms>,
    earlier: Condvar,
}

#[derive(Debug, Default)]
struct Alarms {
    /// By when they go off and, at the same moment, by their numbers.
    waiting: BTreeMap<(Instant, u64), oneshot::Sender<()>>,
    made: u64,
}

/// Returns at once where the moment has passed. Cancel safe.
pub(crate) async fn sleep_until(moment: Instant) {
    if moment > Instant::now() {
        let _rings = TIMER.bell(moment).await;
    }
}

impl Timer {
    /// What rings at the moment.
    fn bell(&self, moment: Instant) -> oneshot::Receiver<()> {
        let (bell, rings) = oneshot::channel();
        let mut alarms = self.alarms.lock();
        let number = alarms.made;
        alarms.made += 1;
        alarms.waiting.insert((moment, number), bell);
        if alarms.waiting.first_key_value().is_some_and(|((_, first), _)| *first == number) {
            self.earlier.notify_one();
        }
        rings
    }
}

fn run() {
    let mut alarms = TIMER.alarms.lock();
    loop {
        match alarms.waiting.first_entry() {
            None => TIMER.earlier.wait(&mut alarms),
            Some(first) if first.key().0 > Instant::now() => {
                let moment = first.key().0.into_std();
                TIMER.earlier.wait_until(&mut alarms, moment);
            }
            Some(first) => {
                let _gone = first.remove().send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn who_is_due_earlier_waits_for_nobody_who_came_before() {
        let begin = Instant::now();
        let _later = TIMER.bell(begin + Duration::from_secs(3_600));
        let soon = begin + Duration::from_millis(20);
        timeout(Duration::from_secs(60), sleep_until(soon)).await.expect("it rings");
        assert!(Instant::now() >= soon);
    }
}
