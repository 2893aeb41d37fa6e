//! Events in order: faults of processes, changes of members, failed requests.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::script::Action;

/// Failures with a line of their own; further ones are counted.
const FAILURES_MAX: usize = 20;

/// Clones share it.
#[derive(Clone)]
pub(crate) struct Journal {
    began: Instant,
    entries: Arc<Mutex<Vec<Entry>>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Since the beginning.
    pub(crate) at: Duration,
    pub(crate) event: Event,
}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    Action(Action),
    /// An instance is in the registry's view.
    Joined(String),
    /// The status changed.
    Changed {
        id: String,
        status: &'static str,
    },
    Left(String),
    /// A request got a wrong response.
    Failed(String),
}

impl Journal {
    pub(crate) fn begin(began: Instant) -> Self {
        Self { began, entries: Arc::default() }
    }

    pub(crate) fn note(&self, event: impl Into<Event>) {
        let (at, event) = (self.began.elapsed(), event.into());
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let is_failure = |event: &Event| matches!(event, Event::Failed(_));
        let failures = || entries.iter().filter(|entry| is_failure(&entry.event)).count();
        if !is_failure(&event) || failures() < FAILURES_MAX {
            entries.push(Entry { at, event });
        }
    }

    /// All but the first `seen`.
    pub(crate) fn since(&self, seen: usize) -> Vec<Entry> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(seen..).unwrap_or_default().to_vec()
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn count(&self, such: impl Fn(&Event) -> bool) -> usize {
        self.since(0).iter().filter(|entry| such(&entry.event)).count()
    }
}

impl From<Action> for Event {
    fn from(act: Action) -> Self {
        Self::Action(act)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Action(act) => write!(formatter, "-- {act}"),
            Self::Joined(id) => write!(formatter, " + {id} is in the registry"),
            Self::Changed { id, status } => write!(formatter, " ~ {id} is {status}"),
            Self::Left(id) => write!(formatter, " - {id} is gone from the registry"),
            Self::Failed(what) => write!(formatter, " ! {what}"),
        }
    }
}
