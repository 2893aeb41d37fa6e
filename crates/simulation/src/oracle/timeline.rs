//! The policies in force by time: the reference for what a caller may see and register.

use super::conditions::Moment;
use crate::access::{AccessRules, ServiceName, Subject};

/// All policies that were in force.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    /// In order of time; each until the next.
    epochs: Vec<(Moment, AccessRules)>,
}

/// The parts of a subject that a reader may have been shown within a time.
#[derive(Debug, Default)]
pub(crate) struct Exposure {
    pub(crate) shown: Vec<Subject>,
    /// At some time within, the watch was refused.
    pub(crate) is_refused: bool,
}

impl Timeline {
    /// Puts rules into force.
    pub(crate) fn begin(&mut self, rules: AccessRules, now: Moment) {
        self.epochs.push((now, rules));
    }

    /// The rules that were in force after a moment, by either clock, the latest first.
    fn since(&self, since: Moment) -> impl Iterator<Item = &AccessRules> {
        let mut until = None;
        self.epochs.iter().rev().map_while(move |(from, rules)| {
            let ended = until.replace(*from);
            let is_over = ended.is_some_and(|ended| ended.at < since.at || ended.run < since.run);
            (!is_over).then_some(rules)
        })
    }

    /// The parts of a subject that readers on a node may have been shown since a moment.
    pub(crate) fn exposure(&self, node: usize, subject: &Subject, since: Moment) -> Exposure {
        let mut exposure = Exposure::default();
        for rules in self.since(since) {
            match rules.shown(node, subject) {
                None => exposure.is_refused = true,
                Some(shown) if exposure.shown.contains(&shown) => {}
                Some(shown) => exposure.shown.push(shown),
            }
        }
        exposure
    }

    /// Returns whether a service could not register at some time since a moment.
    pub(crate) fn barred_since(&self, service: &ServiceName, since: Moment) -> bool {
        self.since(since).any(|rules| rules.cannot_register().contains(service))
    }
}
