//! The script: the faults of processes, and their times.

use std::{fmt, time::Duration};

use tokio::time::{Instant, sleep_until};

/// Something that is done to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// `kill -9`, of a replica.
    Kill(&'static str),
    /// A replica is asked to leave, as it is on SIGTERM.
    Drain(&'static str),
    Start(&'static str),
    /// `kill -9`, too.
    KillRegistry,
    /// With what it kept on disk.
    StartRegistry,
}

/// In milliseconds from the beginning, in order.
const ACTS: [(u64, Act); 16] = [
    (2_000, Act::Kill("orders-03")),
    (4_000, Act::Kill("orders-07")),
    (4_000, Act::Kill("orders-11")),
    (6_000, Act::Drain("orders-05")),
    (6_500, Act::Start("orders-16")),
    (6_500, Act::Start("orders-17")),
    (6_500, Act::Start("orders-18")),
    (9_000, Act::Kill("prices-01")),
    (10_000, Act::Start("prices-03")),
    (11_500, Act::KillRegistry),
    (13_500, Act::StartRegistry),
    (15_000, Act::Kill("orders-16")),
    (15_500, Act::Drain("prices-02")),
    (15_500, Act::Start("prices-04")),
    (16_500, Act::Start("orders-19")),
    (16_500, Act::Start("orders-20")),
];

/// The acts that are left.
pub(crate) struct Script {
    began: Instant,
    left: std::slice::Iter<'static, (u64, Act)>,
}

impl Script {
    pub(crate) fn begin(began: Instant) -> Self {
        Self { began, left: ACTS.iter() }
    }

    /// The next act, when its time has come; never where there is none. Cancel safe.
    pub(crate) async fn next(&mut self) -> Act {
        let Some(&(at_ms, act)) = self.left.as_slice().first() else {
            return std::future::pending().await;
        };
        sleep_until(self.began + Duration::from_millis(at_ms)).await;
        self.left.next();
        act
    }
}

impl fmt::Display for Act {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(id) => write!(formatter, "kill -9 of {id}, which says goodbye to nobody"),
            Self::Drain(id) => write!(formatter, "{id} is asked to leave"),
            Self::Start(id) => write!(formatter, "{id} is started"),
            Self::KillRegistry => write!(formatter, "kill -9 of the registry"),
            Self::StartRegistry => write!(formatter, "the registry is started again"),
        }
    }
}
