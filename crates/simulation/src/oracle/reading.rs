//! Compares one watch, message by message, with the reference: nothing skipped, repeated, reordered
//! or made up.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

use waypost_client::proto::{Change, Instance};

use super::{
    Histories,
    history::{History, Seen, State},
};
use crate::{
    access::Subject,
    journal::{Event, Identity, WatchMessage},
    software::reader::ReadingMode,
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
    /// The time of the request whose watch is open, or was last.
    pub(crate) asked_at: Millis,
    /// The parts of the subject that the messages so far may have shown: more than one while the
    /// parts look the same.
    shown: Vec<Subject>,
    /// Messages that can't be compared yet, as the recorder is behind; each with the parts of the
    /// subject that it may show.
    pending: VecDeque<(Event, Vec<Subject>)>,
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
            asked_at: since,
            shown: Vec::new(),
            pending: VecDeque::new(),
        }
    }

    /// Notes an event, which may show these parts of the subject.
    pub(crate) fn note(&mut self, event: Event, may_show: Vec<Subject>) {
        match &event {
            Event::Opened { asked_at, .. } => {
                self.is_open = true;
                self.asked_at = *asked_at;
            }
            Event::Ended { .. } => self.is_open = false,
            _ => {}
        }
        self.pending.push_back((event, may_show));
    }

    pub(crate) fn is_compared(&self) -> bool {
        self.pending.is_empty()
    }

    /// Compares what can be compared by now. Returns how much that was.
    pub(crate) fn compare(&mut self, histories: &Histories) -> Result<u64, String> {
        let mut checks = 0;
        while let Some((event, _)) = self.pending.front() {
            if let Event::Received { history, revision, .. } = event
                && histories.get(history).is_none_or(|known| known.revision() < *revision)
            {
                break;
            }
            let Some((event, may_show)) = self.pending.pop_front() else { break };
            checks += 1;
            self.compare_one(event, may_show, histories)
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

    fn compare_one(
        &mut self,
        event: Event,
        may_show: Vec<Subject>,
        histories: &Histories,
    ) -> Result<(), String> {
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
        self.resets += u64::from(stood.is_some() && matches!(message, WatchMessage::Snapshot(_)));
        self.shown = match (message, stood) {
            (WatchMessage::Snapshot(instances), _) => {
                snapshot_shows(&instances, reference, may_show, revision)?
            }
            (_, None) => return Err("something came before a snapshot".to_owned()),
            (WatchMessage::Changes(changes), Some(stood)) => {
                self.changes_show(&changes, reference, &may_show, stood..revision)?
            }
            (WatchMessage::Idle, Some(stood)) => {
                self.changes_show(&[], reference, &may_show, stood..revision)?
            }
        };
        self.position = Some((history, revision));
        Ok(())
    }

    /// Returns the parts of the subject that all messages so far and these changes may show.
    fn changes_show(
        &self,
        changes: &[Change],
        reference: &History,
        may_show: &[Subject],
        revisions: Range<u64>,
    ) -> Result<Vec<Subject>, String> {
        let mut first = None;
        let mut shown = Vec::new();
        for part in self.shown.iter().filter(|part| may_show.contains(part)) {
            match same_changes(changes, reference, part, revisions.clone()) {
                Ok(()) => shown.push(part.clone()),
                Err(wrong) => first = first.or(Some(wrong)),
            }
        }
        match (shown.is_empty(), first) {
            (false, _) => Ok(shown),
            (true, Some(wrong)) => Err(wrong),
            (true, None) => {
                let stood = &self.shown;
                Err(format!("it goes on with {stood:?} and may see {may_show:?}: {changes:?}"))
            }
        }
    }
}

/// Returns the parts of a subject that a snapshot may show.
fn snapshot_shows(
    instances: &[Instance],
    reference: &History,
    may_show: Vec<Subject>,
    revision: u64,
) -> Result<Vec<Subject>, String> {
    let mut first = None;
    let mut shown = Vec::new();
    for part in may_show {
        match same_state(instances, &reference.state(&part, revision)) {
            Ok(()) => shown.push(part),
            Err(wrong) => first = first.or(Some(wrong)),
        }
    }
    match first {
        Some(wrong) if shown.is_empty() => Err(format!("its snapshot at {revision} {wrong}")),
        None if shown.is_empty() => Err(format!("it may see nothing, and got {instances:?}")),
        _ => Ok(shown),
    }
}

fn same_changes(
    changes: &[Change],
    reference: &History,
    part: &Subject,
    revisions: Range<u64>,
) -> Result<(), String> {
    let up_to = revisions.end;
    let mut expected = reference.through(part, revisions.start, up_to);
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

fn is_told(expected: &Seen<'_>, change: &Change) -> bool {
    let Some(instance) = &change.instance else { return false };
    expected.revision == change.revision
        && expected.kind == change.kind()
        && expected.reason == change.reason()
        && expected.identity == Identity::of(instance)
        && expected.instance.is_none_or(|expected| expected == instance)
}

/// Errors unless instances are exactly a state.
pub(crate) fn same_state(instances: &[Instance], state: &State) -> Result<(), String> {
    let count = instances.len();
    let mut seen = BTreeMap::new();
    for instance in instances {
        seen.insert((instance.service.clone(), instance.id.clone()), instance);
    }
    if seen.len() != count {
        return Err("names an instance twice".to_owned());
    }
    for (place, instance) in state {
        match seen.get(place) {
            None => return Err(format!("lacks {place:?}")),
            Some(seen) if **seen != **instance => {
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
