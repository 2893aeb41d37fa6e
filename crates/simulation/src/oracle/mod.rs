//! The oracle: compares what hosts saw with the facts, in order of time. Never acts on the world.

mod access;
mod conditions;
mod history;
mod losses;
mod membership;
mod reading;
mod timeline;
mod views;

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

use waypost_client::proto::{Change, ChangeKind, ChangeReason, Status};

pub(crate) use conditions::Conditions;
pub(crate) use history::History;
pub(crate) use membership::{Membership, Termination};
pub(crate) use views::ViewRecord;

use crate::{
    access::{PROBES, Subject},
    journal::{Event, Identity, JournalEntry, Lapse, WatchMessage},
    software::reader::ReadingMode,
    software::replica::Content,
    time::Millis,
};
use losses::Losses;
use membership::{LATE_MAX_MS, STANDSTILL_MS, TRAVEL_MS};
use reading::Reading;
use timeline::Timeline;

/// The longest time in which a watcher recovers from a fault.
const WATCHER_RECOVERY_MS: Millis = 20_000;
/// The longest delay of a change to a watcher without faults.
const PROPAGATION_MS: Millis = 400;

/// The number of changes in a violation's report.
const RECENT: usize = 14;

/// The histories of the registry's starts, by their ids.
pub(crate) type Histories = BTreeMap<String, History>;

/// Something that must not be.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) at: Millis,
    pub(crate) what: String,
}

pub(crate) struct Oracle {
    pub(crate) conditions: Conditions,
    pub(crate) membership: Membership,
    pub(crate) histories: Histories,
    /// The histories in the order of their beginning.
    lives: Vec<String>,
    readings: Vec<Reading>,
    lapses: Vec<Lapse>,
    losses: Losses,
    /// Where there is a policy.
    timeline: Option<Timeline>,
    /// The latest leases, with their services.
    pub(crate) leases: VecDeque<(u64, Identity)>,
    pub(crate) checks: u64,
    pub(crate) violations: Vec<Violation>,
    /// The latest changes, for people to read.
    recent: VecDeque<String>,
    trace: DefaultHasher,
}

impl Oracle {
    pub(crate) fn new(hosts: usize) -> Self {
        Self {
            conditions: Conditions::new(hosts),
            membership: Membership::default(),
            histories: Histories::new(),
            lives: Vec::new(),
            readings: Vec::new(),
            lapses: Vec::new(),
            losses: Losses::default(),
            timeline: None,
            leases: VecDeque::new(),
            checks: 0,
            violations: Vec::new(),
            recent: VecDeque::new(),
            trace: DefaultHasher::new(),
        }
    }

    /// A number that identifies this run.
    pub(crate) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    /// The latest changes.
    pub(crate) fn recent(&self) -> impl Iterator<Item = &str> {
        self.recent.iter().map(String::as_str)
    }

    /// The current history of the registry.
    pub(crate) fn present(&self) -> Option<&History> {
        self.histories.get(self.lives.last()?)
    }

    pub(crate) fn wrong(&mut self, what: String) {
        self.violations.push(Violation { at: self.conditions.now.at, what });
    }

    fn check(&mut self, judged: Result<(), String>) {
        self.checks += 1;
        if let Err(what) = judged {
            self.wrong(what);
        }
    }

    /// Adds a reader. Returns its number.
    pub(crate) fn add_reader(&mut self, node: usize, subject: Subject, mode: ReadingMode) -> usize {
        let number = self.readings.len();
        self.readings.push(Reading::new(number, node, subject, mode, self.conditions.now.at));
        number
    }

    /// Processes an entry of the journal.
    pub(crate) fn take(&mut self, entry: JournalEntry) {
        self.hash(&entry);
        match entry.event {
            Event::Wrong(what) => self.wrong(what),
            Event::Answered { checks } => self.checks += checks,
            Event::Lapsing(lapse) => self.lapses.push(lapse),
            Event::Received { reader, ref history, revision, ref message } => {
                if self.readings[reader].mode == ReadingMode::Recording {
                    self.record(history, revision, message, entry.at);
                } else {
                    let may_show = self.may_show(reader);
                    self.readings[reader].note(entry.event, may_show);
                }
            }
            Event::Opened { reader, .. } | Event::Ended { reader } => {
                self.readings[reader].note(entry.event, Vec::new());
            }
            Event::Refused { reader, asked_at } => self.judge_refusal(reader, asked_at),
            Event::Granted { lease, identity } => self.note_lease(lease, identity),
        }
    }

    /// Hashes the parts of an event that make runs equal. Histories have random ids: their order
    /// counts.
    fn hash(&mut self, JournalEntry { at, event }: &JournalEntry) {
        at.hash(&mut self.trace);
        match event {
            Event::Opened { reader, resumed, .. } => (0, reader, resumed).hash(&mut self.trace),
            Event::Ended { reader } => (1, reader).hash(&mut self.trace),
            Event::Received { reader, history, revision, message } => {
                let life = self.lives.iter().position(|life| life == history);
                (2, reader, life, revision).hash(&mut self.trace);
                let mut note = |kind: i32, identity: Identity| {
                    (kind, identity).hash(&mut self.trace);
                };
                match message {
                    WatchMessage::Idle => {}
                    WatchMessage::Snapshot(all) => {
                        all.iter().for_each(|one| note(0, Identity::of(one)));
                    }
                    WatchMessage::Changes(changes) => {
                        for change in changes {
                            note(change.kind, change.instance.as_ref().map(Identity::of).unwrap());
                        }
                    }
                }
            }
            Event::Lapsing(lapse) => (3, &lapse.identity, lapse.renewed).hash(&mut self.trace),
            Event::Answered { checks } => (4, checks).hash(&mut self.trace),
            Event::Wrong(_) => 5.hash(&mut self.trace),
            Event::Refused { reader, .. } => (6, reader).hash(&mut self.trace),
            Event::Granted { lease, .. } => (7, lease).hash(&mut self.trace),
        }
    }

    fn record(&mut self, history: &str, revision: u64, message: &WatchMessage, at: Millis) {
        let is_new = !self.histories.contains_key(history);
        if is_new {
            self.histories.insert(history.to_owned(), History::new(history.to_owned()));
            self.lives.push(history.to_owned());
        }
        match message {
            // What is missing between, if anything, shows as a gap.
            WatchMessage::Snapshot(_) if !is_new => {}
            WatchMessage::Snapshot(instances) => {
                if revision > 0 || !instances.is_empty() {
                    self.wrong(format!("the recorder came late, at revision {revision}"));
                }
            }
            WatchMessage::Changes(changes) => {
                for change in changes {
                    self.record_change(history, change.clone(), at);
                }
            }
            WatchMessage::Idle => {}
        }
    }

    fn record_change(&mut self, history: &str, change: Change, at: Millis) {
        let run = self.conditions.now.run;
        let Some(reference) = self.histories.get_mut(history) else { return };
        let revisions = match reference.record(change, run) {
            Ok(revisions) => revisions,
            Err(what) => return self.wrong(what),
        };
        for revision in revisions {
            self.judge(history, revision, at);
        }
    }

    /// Judges a change of membership.
    fn judge(&mut self, history: &str, revision: u64, at: Millis) {
        let Some(entry) = self.histories.get(history).and_then(|known| known.entry(revision))
        else {
            return;
        };
        let (identity, reason) = (Identity::of(&entry.instance), entry.reason);
        let (was_held, is_held) = (entry.was_held, entry.is_held);
        let (kind, why) = (entry.kind.as_str_name(), reason.as_str_name());
        self.recent.push_back(format!("{at} ms: {revision} {kind} {why} {identity}"));
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        let runs_out = matches!(reason, ChangeReason::Expired | ChangeReason::Disconnected);
        let is_loss = !was_held && (is_held || runs_out);
        if is_loss {
            self.losses.note(&identity.namespace, self.conditions.now.run);
        }
        let judged = match entry.kind {
            ChangeKind::Removed => self
                .judge_lapse(&identity, reason, at)
                .and_then(|()| self.membership.judge_removal(&identity, reason, &self.conditions)),
            ChangeKind::Updated if is_held && !was_held => self
                .judge_lapse(&identity, ChangeReason::Expired, at)
                .and_then(|()| self.losses.judge_hold(&identity, self.conditions.now.run))
                .and_then(|()| self.membership.judge_loss(&identity, "suspect", &self.conditions)),
            ChangeKind::Added if self.is_ghost(&identity) => {
                Err(format!("{identity} was added, and nobody is it"))
            }
            _ => Ok(()),
        };
        self.check(judged);
        if is_loss || entry_is_removal(&self.histories, history, revision) {
            self.lapses.retain(|lapse| lapse.identity != identity);
        }
    }

    fn is_ghost(&self, identity: &Identity) -> bool {
        identity.namespace != PROBES && !self.membership.is_known(identity)
    }

    /// Judges the removal of a lease that was not renewed.
    fn judge_lapse(
        &self,
        identity: &Identity,
        reason: ChangeReason,
        at: Millis,
    ) -> Result<(), String> {
        let Some(lapse) = self.lapses.iter().find(|lapse| lapse.identity == *identity) else {
            return Ok(());
        };
        let Lapse { renewed, ttl_ms, broken, .. } = lapse;
        let moment = |at| self.conditions.moment(at);
        let is_over = |from: Millis, lasts: Millis| {
            let (since, now) = (moment(from), self.conditions.now);
            // Short standstills are not noticed, and count.
            let standstills = now.standstills - since.standstills;
            at >= from + lasts && now.run - since.run + STANDSTILL_MS * standstills >= lasts
        };
        let by_grace = broken.is_some_and(|(at, grace_ms)| is_over(at, grace_ms));
        if !by_grace && !is_over(renewed.0, *ttl_ms) {
            return Err(format!(
                "{identity} was removed ({reason:?}) at {at} ms, which is too early: {lapse:?}"
            ));
        }
        match reason {
            ChangeReason::Expired => Ok(()),
            ChangeReason::Disconnected if broken.is_some() => Ok(()),
            _ => Err(format!("{identity} was removed with {reason:?}, it ran out: {lapse:?}")),
        }
    }

    /// Looks for what has not happened in time.
    pub(crate) fn look_for_late(&mut self) {
        self.compare_readings();
        self.look_for_dead();
        self.look_for_lapses();
        self.look_for_laggards();
        self.look_for_open_watches();
    }

    fn compare_readings(&mut self) {
        for number in 0..self.readings.len() {
            match self.readings[number].compare(&self.histories) {
                Ok(checks) => self.checks += checks,
                Err(what) => self.wrong(what),
            }
        }
    }

    fn look_for_dead(&mut self) {
        let Some(present) = self.present() else { return };
        let expected_alive = |identity: &Identity| {
            present.members.contains_key(identity) && !present.held.contains(identity)
        };
        let overdue: Vec<_> = self
            .membership
            .overdue(&self.conditions)
            .chain(self.membership.overstaying(&self.conditions))
            .filter(|(identity, _)| expected_alive(identity))
            .map(|(_, what)| what)
            .collect();
        for what in overdue {
            self.wrong(what);
        }
    }

    fn look_for_lapses(&mut self) {
        let Some(present) = self.histories.get(self.lives.last().unwrap_or(&String::new())) else {
            return;
        };
        let (conditions, members, held) = (&self.conditions, &present.members, &present.held);
        // A registry that forgot everything forgot them, too.
        self.lapses.retain(|lapse| lapse.renewed.0 > conditions.began.at);
        let late = self.lapses.iter().find(|lapse| {
            let Lapse { identity, renewed, ttl_ms, broken } = lapse;
            let limit = |from: Millis, lasts: Millis| {
                let since = conditions.moment(from);
                let standstills = conditions.now.standstills - since.standstills;
                since.run + lasts + LATE_MAX_MS + TRAVEL_MS + STANDSTILL_MS * standstills
            };
            let by_ttl = limit(renewed.1, *ttl_ms);
            let by_grace = broken.map_or(by_ttl, |(at, grace_ms)| {
                limit(at, conditions.grace_ms(*ttl_ms, grace_ms, at))
            });
            members.contains_key(identity)
                && !held.contains(identity)
                && conditions.now.run > by_ttl.min(by_grace)
        });
        if let Some(late) = late {
            let what = format!("a lease should have ended by now: {late:?}");
            self.wrong(what);
        }
    }

    /// Finds prompt readers that lack what the recorder has had for a while.
    fn look_for_laggards(&mut self) {
        let (Some(present), conditions) = (self.present(), &self.conditions) else { return };
        if conditions.now.at < conditions.shaken.at + WATCHER_RECOVERY_MS {
            return;
        }
        let late = self.readings.iter().find_map(|reading| {
            if reading.mode != ReadingMode::Prompt
                || !conditions.is_well(reading.node, WATCHER_RECOVERY_MS)
                || conditions.now.at < reading.since + WATCHER_RECOVERY_MS
                || !reading.is_wanted
            {
                return None;
            }
            let subject = self.steadily_shown(reading)?;
            let missing = match &reading.position {
                Some((history, revision)) if *history == present.id => {
                    overdue_for(present, &subject, *revision, conditions.now.run)?
                }
                other => format!("it stands at {other:?}, the registry is at {}", present.id),
            };
            Some(format!(
                "reader {} on host {}, which nothing hampers, of {:?}: {missing}",
                reading.number, reading.node, reading.subject
            ))
        });
        self.checks += 1;
        if let Some(what) = late {
            self.wrong(what);
        }
    }

    /// The number of snapshots that readers got because they fell behind.
    pub(crate) fn resets(&self) -> u64 {
        self.readings.iter().map(|reading| reading.resets).sum()
    }

    /// A reader ends with its host, or is ended.
    pub(crate) fn drop_reader(&mut self, number: usize) {
        self.readings[number].is_wanted = false;
    }

    /// Judges the world after a while without faults.
    pub(crate) fn look_at_peace(&mut self, wanted: &BTreeMap<usize, Content>) {
        self.compare_readings();
        let behind = self.readings.iter().find(|reading| !reading.is_compared());
        let gap = self.present().and_then(History::gap);
        let what = match (behind, gap) {
            (_, Some(revision)) => format!("nobody was told of revision {revision}"),
            (Some(reading), None) => format!(
                "reader {} was told what the recorder was not: {:?}",
                reading.number, reading.position
            ),
            (None, None) => return self.compare_truth(wanted),
        };
        self.wrong(what);
    }

    fn compare_truth(&mut self, wanted: &BTreeMap<usize, Content>) {
        let Some(present) = self.present() else { return };
        let mut wrong = Vec::new();
        let mut checks = 0;
        for (identity, process) in self.membership.present(&self.conditions) {
            checks += 1;
            let Some(content) = wanted.get(&process) else { continue };
            match present.members.get(identity) {
                None => wrong.push(format!("{identity} (process {process}) lives and is missing")),
                Some(member) => {
                    let status = match member.status() {
                        Status::Suspect => Status::Up,
                        status => status,
                    };
                    let seen = Content {
                        status,
                        weight: member.weight.unwrap_or(100),
                        zone: member.zone.clone(),
                        note: member.metadata.get("note").cloned().unwrap_or_default(),
                    };
                    if seen != *content {
                        wrong.push(format!("{identity} wants to be {content:?} and is {seen:?}"));
                    }
                }
            }
        }
        for identity in present.members.keys() {
            checks += 1;
            let excused = identity.namespace == PROBES
                || present.held.contains(identity)
                || self.membership.is_held(identity);
            if !excused {
                wrong.push(format!("{identity} is there, and nobody is it"));
            }
        }
        self.checks += checks;
        for what in wrong {
            self.wrong(what);
        }
    }
}

fn entry_is_removal(histories: &Histories, history: &str, revision: u64) -> bool {
    let entry = histories.get(history).and_then(|known| known.entry(revision));
    entry.is_some_and(|entry| entry.kind == ChangeKind::Removed)
}

/// The message that a watcher at a revision should have got, if any.
pub(crate) fn overdue_for(
    present: &History,
    subject: &Subject,
    revision: u64,
    run: Millis,
) -> Option<String> {
    let missing = present.through(subject, revision, u64::MAX).next()?;
    let entry = present.entry(missing.revision)?;
    let late = run > entry.seen_at_run + PROPAGATION_MS;
    late.then(|| {
        format!(
            "it stands at revision {revision} and has not been told of {missing:?} for {} ms",
            run - entry.seen_at_run
        )
    })
}
