//! A precise timer. The runtime's timer has a resolution of milliseconds and fires up to two late,
//! which exceeds many of the measured latencies.

use std::{collections::BTreeMap, sync::LazyLock, thread};

use parking_lot::{Condvar, Mutex};
use tokio::{sync::oneshot, time::Instant};

static TIMER: LazyLock<Timer> = LazyLock::new(|| {
    thread::Builder::new().name("timer".into()).spawn(run).expect("one more thread can be started");
    Timer::default()
});

/// One thread for all alarms. A new alarm wakes it only if it is the earliest.
#[derive(Debug, Default)]
struct Timer {
    alarms: Mutex<Alarms>,
    earlier: Condvar,
}

#[derive(Debug, Default)]
struct Alarms {
    /// By time, then by number.
    waiting: BTreeMap<(Instant, u64), oneshot::Sender<()>>,
    made: u64,
}

/// Waits until `moment`; returns at once if it has passed. Cancel safe.
pub(crate) async fn sleep_until(moment: Instant) {
    if moment > Instant::now() {
        let _fired = TIMER.alarm(moment).await;
    }
}

impl Timer {
    /// Sets an alarm.
    fn alarm(&self, moment: Instant) -> oneshot::Receiver<()> {
        let (alarm, fired) = oneshot::channel();
        let mut alarms = self.alarms.lock();
        let number = alarms.made;
        alarms.made += 1;
        alarms.waiting.insert((moment, number), alarm);
        if alarms.waiting.first_key_value().is_some_and(|((_, first), _)| *first == number) {
            self.earlier.notify_one();
        }
        fired
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
    async fn earlier_alarm_does_not_wait_for_a_later_one() {
        let begin = Instant::now();
        let _later = TIMER.alarm(begin + Duration::from_secs(3_600));
        let soon = begin + Duration::from_millis(20);
        timeout(Duration::from_secs(60), sleep_until(soon)).await.expect("the alarm fires");
        assert!(Instant::now() >= soon);
    }
}
