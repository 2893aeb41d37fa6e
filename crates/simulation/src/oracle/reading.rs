//! Compares one watch, message by message, with the reference: nothing skipped, repeated, reordered
//! or made up.

use std::{collections::VecDeque, sync::Arc};

use waypost_client::proto::{Change, Instance};

use super::{
    Histories,
    history::{History, Seen, State},
};
use crate::{
    journal::{Event, Identity, WatchMessage},
    software::reader::{ReadingMode, Subject},
    time::Millis,
};

/// The state of a reader.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) number: usize,
    pub(crate) node: usize,
    pub(crate) subject: Subject,
    pub(crate) mode: ReadingMode,
    /// True while its watch is open, by its own report.
    pub(crate) is_open: bool,
    /// False once the reader stops.
    pub(crate) is_wanted: bool,
    pub(crate) since: Millis,
    /// The number of snapshots of the history that it already followed.
    pub(crate) resets: u64,
    /// The position; none before the first snapshot.
    pub(crate) position: Option<(String, u64)>,
    /// Messages that can't be compared yet, as the recorder is behind.
    pending: VecDeque<Event>,
}

impl Reading {
    pub(crate) fn new(
        number: usize,
        node: usize,
        subject: Subject,
        mode: ReadingMode,
        since: Millis,
    ) -> Self {
        Self {
            number,
            node,
            subject,
            mode,
            is_open: false,
            is_wanted: true,
            since,
            resets: 0,
            position: None,
            pending: VecDeque::new(),
        }
    }

    pub(crate) fn note(&mut self, event: Event) {
        match &event {
            Event::Opened { .. } => self.is_open = true,
            Event::Ended { .. } => self.is_open = false,
            _ => {}
        }
        self.pending.push_back(event);
    }

    pub(crate) fn is_compared(&self) -> bool {
        self.pending.is_empty()
    }

    /// Compares what can be compared by now. Returns how much that was.
    pub(crate) fn compare(&mut self, histories: &Histories) -> Result<u64, String> {
        let mut checks = 0;
        while let Some(event) = self.pending.front() {
            if let Event::Received { history, revision, .. } = event
                && histories.get(history).is_none_or(|known| known.revision() < *revision)
            {
                break;
            }
            let Some(event) = self.pending.pop_front() else { break };
            checks += 1;
            self.compare_one(event, histories)
                .map_err(|wrong| format!("{}: {wrong}", self.title()))?;
        }
        Ok(checks)
    }

    fn title(&self) -> String {
        let Subject { namespace, services, zones } = &self.subject;
        let position = &self.position;
        format!(
            "reader {} of {namespace} {services:?} zones {zones:?}, {:?}, at {position:?}",
            self.number, self.mode
        )
    }

    fn compare_one(&mut self, event: Event, histories: &Histories) -> Result<(), String> {
        let Event::Received { history, revision, message, .. } = event else {
            if let Event::Opened { resumed: false, .. } = event {
                self.position = None;
            }
            return Ok(());
        };
        let Some(reference) = histories.get(&history) else { return Ok(()) };
        let stood = self.position.as_ref().filter(|(known, _)| *known == history);
        let stood = stood.map(|(_, revision)| *revision);
        if let Some(stood) = stood
            && revision < stood
        {
            return Err(format!("its cursor went back to {revision}"));
        }
        match (message, stood) {
            (WatchMessage::Snapshot(instances), stood) => {
                self.resets += u64::from(stood.is_some());
                same_state(instances, &reference.state(&self.subject, revision))
                    .map_err(|wrong| format!("its snapshot at {revision} {wrong}"))?;
            }
            (_, None) => return Err("something came before a snapshot".to_owned()),
            (WatchMessage::Changes(changes), Some(stood)) => {
                self.same_changes(&changes, reference, stood, revision)?;
            }
            (WatchMessage::Idle, Some(stood)) => {
                self.same_changes(&[], reference, stood, revision)?;
            }
        }
        self.position = Some((history, revision));
        Ok(())
    }

    fn same_changes(
        &self,
        changes: &[Change],
        reference: &History,
        after: u64,
        up_to: u64,
    ) -> Result<(), String> {
        let mut expected = reference.through(&self.subject, after, up_to);
        for change in changes {
            let told = format!("{:?} at {}", change.kind(), change.revision);
            let Some(expected) = expected.next() else {
                return Err(format!("it got {told} and nothing was to come up to {up_to}"));
            };
            if !is_told(&expected, change) {
                return Err(format!("expected {expected:?}, it got {change:?}"));
            }
        }
        match expected.next() {
            Some(missing) => Err(format!("up to {up_to} it did not get {missing:?}")),
            None => Ok(()),
        }
    }
}

fn is_told(expected: &Seen<'_>, change: &Change) -> bool {
    let Some(instance) = &change.instance else { return false };
    expected.revision == change.revision
        && expected.kind == change.kind()
        && expected.reason == change.reason()
        && expected.identity == Identity::of(instance)
        && expected.instance.is_none_or(|expected| expected == instance)
}

/// Errors unless instances are exactly a state.
pub(crate) fn same_state(instances: Vec<Instance>, state: &State) -> Result<(), String> {
    let count = instances.len();
    let mut seen = State::new();
    for instance in instances {
        seen.insert((instance.service.clone(), instance.id.clone()), Arc::new(instance));
    }
    if seen.len() != count {
        return Err("names an instance twice".to_owned());
    }
    for (place, instance) in state {
        match seen.get(place) {
            None => return Err(format!("lacks {place:?}")),
            Some(seen) if seen != instance => {
                return Err(format!("expected {instance:?}, has {seen:?}"));
            }
            Some(_) => {}
        }
    }
    match seen.keys().find(|place| !state.contains_key(*place)) {
        Some(place) => Err(format!("has {place:?}, which is not there")),
        None => Ok(()),
    }
}
