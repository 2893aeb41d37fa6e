//! Compares the views that the client crate shows with the reference: each is a state that the
//! registry had, and none lags. Instances of an earlier history may be held for a while.

use std::collections::BTreeSet;

use waypost_client::{Snapshot, proto::Cursor};

use super::{Conditions, Histories, Oracle, WATCHER_RECOVERY_MS, overdue_for};
use crate::{access::Subject, time::Millis};

/// The time for which a connected client keeps instances that a new history lacks, and room for a
/// check.
const HOLD_MS: Millis = 16_000;

/// The state of a view.
#[derive(Debug)]
pub(crate) struct ViewRecord {
    pub(crate) node: usize,
    pub(crate) subject: Subject,
    since: Millis,
    /// The history of the last view.
    history: Option<String>,
    /// True where an earlier history may have left instances.
    may_hold: bool,
    /// The revision that was compared last.
    compared: u64,
}

impl ViewRecord {
    pub(crate) fn new(node: usize, subject: Subject, since: Millis) -> Self {
        Self { node, subject, since, history: None, may_hold: false, compared: 0 }
    }

    fn title(&self) -> String {
        format!("the client's view of {:?} on host {}", self.subject, self.node)
    }

    /// True where the view is a state that the registry had.
    fn compare(&mut self, view: &Snapshot, histories: &Histories) -> Result<bool, String> {
        let Cursor { history_id, revision } = view.cursor();
        let Some(reference) = histories.get(history_id) else { return Ok(false) };
        if reference.revision() < *revision {
            return Ok(false);
        }
        self.may_hold |= self.history.as_ref().is_some_and(|known| known != history_id);
        self.history = Some(history_id.clone());
        let held: BTreeSet<&str> = view.missing().map(|(instance, _)| &*instance.id).collect();
        if self.compared == *revision && held.is_empty() {
            return Ok(false);
        }
        self.compared = *revision;
        let state = reference.state(&self.subject, *revision);
        for instance in state.values() {
            if view.instance(&instance.id) != Some(&**instance) {
                let shown = view.instance(&instance.id);
                return Err(format!("at {revision} it shows {shown:?} for {instance:?}"));
            }
        }
        let place = |id: &String| (self.subject.services[0].clone(), id.clone());
        let extra = view.instances().find(|shown| {
            let is_held = self.may_hold && held.contains(&*shown.id);
            !state.contains_key(&place(&shown.id)) && !is_held
        });
        match extra {
            Some(extra) => Err(format!("at {revision} it shows {extra:?}, which is not there")),
            None => Ok(true),
        }
    }
}

impl Oracle {
    /// Checks a view in its current state.
    pub(crate) fn look_at_view(&mut self, record: &mut ViewRecord, view: Option<&Snapshot>) {
        let judged = match view {
            Some(view) => record.compare(view, &self.histories),
            None => Ok(false),
        };
        let judged = judged.and_then(|compared| self.in_time(record, view).map(|()| compared));
        self.checks += 1;
        if let Err(what) = judged {
            let title = record.title();
            self.wrong(format!("{title}: {what}"));
        }
    }

    fn in_time(&self, record: &ViewRecord, view: Option<&Snapshot>) -> Result<(), String> {
        let Conditions { now, shaken, .. } = &self.conditions;
        let Some(present) = self.present() else { return Ok(()) };
        if now.at < shaken.at + WATCHER_RECOVERY_MS
            || !self.conditions.is_well(record.node, WATCHER_RECOVERY_MS)
            || now.at < record.since + WATCHER_RECOVERY_MS
        {
            return Ok(());
        }
        let Some(view) = view else { return Err("it shows nothing".to_owned()) };
        let Cursor { history_id, revision } = view.cursor();
        if *history_id != present.id {
            return Err(format!(
                "it shows another history, {history_id} instead of {}",
                present.id
            ));
        }
        let long = WATCHER_RECOVERY_MS + HOLD_MS;
        let heard = now.at >= shaken.at + long && self.conditions.is_well(record.node, long);
        if let Some((instance, _)) = view.missing().next().filter(|_| heard) {
            return Err(format!("it still holds {instance:?}"));
        }
        overdue_for(present, &record.subject, *revision, now.run).map_or(Ok(()), Err)
    }
}
