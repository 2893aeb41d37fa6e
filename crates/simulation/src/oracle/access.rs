//! Judges what readers see and are refused, and who registers, by the policies in force.

use super::{
    Oracle, WATCHER_RECOVERY_MS,
    conditions::{Conditions, Moment},
    reading::Reading,
    timeline::{Exposure, Timeline},
};
use crate::{
    access::{AccessRules, Subject},
    journal::Identity,
    software::reader::ReadingMode,
    time::Millis,
};

/// The longest time from a policy in force to its effect on open streams, by the contract, and room
/// for the way of a message and for a step.
const EFFECT_MAX_MS: Millis = 1_000 + 240;
/// The time without faults after which a reader has no delayed messages.
const CLEAR_MS: Millis = 3_000;
/// The number of leases that the hostile client gets.
const LEASES: usize = 96;

impl Oracle {
    /// Puts rules into force.
    pub(crate) fn rules_begin(&mut self, rules: AccessRules) {
        let now = self.conditions.now;
        self.membership.bar(&rules.cannot_register(), now);
        self.timeline.get_or_insert_default().begin(rules, now);
    }

    /// Notes a lease, for the hostile client.
    pub(crate) fn note_lease(&mut self, lease: u64, identity: Identity) {
        if self.timeline.is_none() {
            return;
        }
        self.leases.push_back((lease, identity));
        if self.leases.len() > LEASES {
            self.leases.pop_front();
        }
    }

    /// Returns whether a process that was born at a time may have been refused.
    pub(crate) fn may_be_refused(&self, identity: &Identity, born_at: Millis) -> bool {
        let service = (identity.namespace.clone(), identity.service.clone());
        let since = Moment { at: born_at, ..Moment::default() };
        self.timeline.as_ref().is_some_and(|timeline| timeline.barred_since(&service, since))
    }

    /// The parts of its subject that a message to a reader may show now.
    pub(super) fn may_show(&self, reader: usize) -> Vec<Subject> {
        let reading = &self.readings[reader];
        let Some(timeline) = &self.timeline else { return vec![reading.subject.clone()] };
        self.exposure(timeline, reading, reading.asked_at).shown
    }

    fn exposure(&self, timeline: &Timeline, reading: &Reading, asked_at: Millis) -> Exposure {
        let mut since = Moment { at: asked_at, ..Moment::default() };
        if is_prompt(reading, &self.conditions) {
            since.run = self.conditions.now.run.saturating_sub(EFFECT_MAX_MS);
        }
        timeline.exposure(reading.node, &reading.subject, since)
    }

    /// Judges the refusal of a reader that asked at a time.
    pub(super) fn judge_refusal(&mut self, reader: usize, asked_at: Millis) {
        let reading = &self.readings[reader];
        let refused = self.timeline.as_ref().map(|timeline| {
            let since = Moment { at: asked_at, ..Moment::default() };
            timeline.exposure(reading.node, &reading.subject, since).is_refused
        });
        let judged = match refused {
            Some(true) => Ok(()),
            _ => Err(format!(
                "reader {reader} of {:?} was refused, and was allowed since {asked_at} ms",
                reading.subject
            )),
        };
        self.check(judged);
    }

    /// The part of its subject that a reader has been shown for a while; `None` if that changed.
    pub(super) fn steadily_shown(&self, reading: &Reading) -> Option<Subject> {
        let Some(timeline) = &self.timeline else { return Some(reading.subject.clone()) };
        let at = self.conditions.now.at.saturating_sub(WATCHER_RECOVERY_MS);
        let since = Moment { at, ..Moment::default() };
        let Exposure { mut shown, is_refused } =
            timeline.exposure(reading.node, &reading.subject, since);
        let is_steady = !is_refused && shown.len() == 1;
        if is_steady { shown.pop() } else { None }
    }

    /// Finds watches that are still open although their readers lost the right to them.
    pub(super) fn look_for_open_watches(&mut self) {
        let Some(timeline) = &self.timeline else { return };
        let open = self.readings.iter().find(|reading| {
            reading.is_open
                && reading.is_wanted
                && is_prompt(reading, &self.conditions)
                && self.exposure(timeline, reading, reading.asked_at).shown.is_empty()
        });
        let wrong = open.map(|reading| {
            format!("reader {} may not see {:?} any more", reading.number, reading.subject)
        });
        self.check(wrong.map_or(Ok(()), Err));
    }
}

/// Returns whether a reader has what was sent to it a moment ago.
fn is_prompt(reading: &Reading, conditions: &Conditions) -> bool {
    reading.mode == ReadingMode::Prompt
        && conditions.is_well(reading.node, CLEAR_MS)
        && conditions.now.at > conditions.shaken.at + CLEAR_MS
}
