//! The journal of the software on the hosts, in order of time. An entry has what was seen or done,
//! never a judgement.

use std::sync::{Arc, Mutex};

use waypost_client::proto::{Change, Instance};

use crate::time::Millis;

/// Names an instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    pub namespace: String,
    pub service: String,
    pub id: String,
}

impl Identity {
    pub(crate) fn of(instance: &Instance) -> Self {
        let Instance { namespace, service, id, .. } = instance.clone();
        Self { namespace, service, id }
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}/{}", self.namespace, self.service, self.id)
    }
}

/// A message of a watch.
#[derive(Debug, Clone)]
pub(crate) enum WatchMessage {
    /// A whole snapshot, its parts put together.
    Snapshot(Vec<Instance>),
    Changes(Vec<Change>),
    Idle,
}

/// A lease that its holder stopped to renew.
#[derive(Debug, Clone)]
pub(crate) struct Lapse {
    pub(crate) identity: Identity,
    /// The last renewal reached the registry between these times.
    pub(crate) renewed: (Millis, Millis),
    pub(crate) ttl_ms: Millis,
    /// The time at which the renewing stream broke, and the grace granted then.
    pub(crate) broken: Option<(Millis, Millis)>,
}

/// An event on a host.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A reader opened a watch, going on from where it stood or not.
    Opened { reader: usize, resumed: bool, asked_at: Millis },
    /// A reader was refused, at a time after it asked.
    Refused { reader: usize, asked_at: Millis },
    /// A probe has a lease.
    Granted { lease: u64, identity: Identity },
    /// A reader received a message.
    Received { reader: usize, history: String, revision: u64, message: WatchMessage },
    /// A reader's watch ended.
    Ended { reader: usize },
    /// A lease will run out.
    Lapsing(Lapse),
    /// This number of responses of the registry was right.
    Answered { checks: u64 },
    /// A response of the registry was wrong.
    Wrong(String),
}

/// A line of the journal.
#[derive(Debug, Clone)]
pub(crate) struct JournalEntry {
    pub(crate) at: Millis,
    pub(crate) event: Event,
}

/// The journal. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Journal {
    lines: Arc<Mutex<Vec<JournalEntry>>>,
}

impl Journal {
    pub(crate) fn write(&self, at: Millis, event: Event) {
        self.lines.lock().expect("no writer panics").push(JournalEntry { at, event });
    }

    /// The lines since the last call.
    pub(crate) fn take(&self) -> Vec<JournalEntry> {
        std::mem::take(&mut *self.lines.lock().expect("no writer panics"))
    }
}
