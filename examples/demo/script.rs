//! The script: the faults of processes, and their times.

use std::{fmt, time::Duration};

use tokio::time::{Instant, sleep_until};

/// Something that is done to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// `kill -9`, of a replica.
    Kill(&'static str),
    /// A replica gets SIGTERM and drains.
    Drain(&'static str),
    Start(&'static str),
    /// `kill -9`, too.
    KillRegistry,
    /// With what it kept on disk.
    StartRegistry,
}

/// In milliseconds from the beginning, in order.
const ACTS: [(u64, Action); 16] = [
    (2_000, Action::Kill("orders-03")),
    (4_000, Action::Kill("orders-07")),
    (4_000, Action::Kill("orders-11")),
    (6_000, Action::Drain("orders-05")),
    (6_500, Action::Start("orders-16")),
    (6_500, Action::Start("orders-17")),
    (6_500, Action::Start("orders-18")),
    (9_000, Action::Kill("prices-01")),
    (10_000, Action::Start("prices-03")),
    (11_500, Action::KillRegistry),
    (13_500, Action::StartRegistry),
    (15_000, Action::Kill("orders-16")),
    (15_500, Action::Drain("prices-02")),
    (15_500, Action::Start("prices-04")),
    (16_500, Action::Start("orders-19")),
    (16_500, Action::Start("orders-20")),
];

/// The acts that are left.
pub(crate) struct Script {
    began: Instant,
    left: std::slice::Iter<'static, (u64, Action)>,
}

impl Script {
    pub(crate) fn begin(began: Instant) -> Self {
        Self { began, left: ACTS.iter() }
    }

    /// The next act, when its time has come; never where there is none. Cancel safe.
    pub(crate) async fn next(&mut self) -> Action {
        let Some(&(at_ms, act)) = self.left.as_slice().first() else {
            return std::future::pending().await;
        };
        sleep_until(self.began + Duration::from_millis(at_ms)).await;
        self.left.next();
        act
    }
}

impl fmt::Display for Action {
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
