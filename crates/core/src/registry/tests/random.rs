//! The registry against the naive model, over random commands, renewals and times.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fastrand::Rng;

use super::{
    INSTANCES_MAX,
    model::Model,
    registry,
    trial::{Expectation, Trial},
};
use crate::{
    model::{Change, Instance, LeaseId, Metadata, RemovalReason, Revision, Status, Tick, WallTime},
    registry::{Command, Due, LeaseTable, Now, Outcome, Patch, Registry, Target, Transition},
    testing::{Identity, content, fold, id, identity, key, name, terms, weight, with_seeds, zone},
};

/// The registry and its model, which have to agree after every step.
struct Pair {
    registry: Registry,
    table: Arc<LeaseTable>,
    model: Model,
    folded: BTreeMap<Identity, Instance>,
    /// Every lease that was granted.
    leases: Vec<LeaseId>,
    now: u64,
    random: Rng,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let registry = registry(random.u8(..64), random.u64(..), INSTANCES_MAX);
        Self {
            table: registry.lease_table(),
            registry,
            model: Model::default(),
            folded: BTreeMap::new(),
            leases: Vec::new(),
            now: random.u64(..1_000),
            random,
        }
    }

    fn step(&mut self) {
        match self.random.u8(..10) {
            0..=2 => self.pass_time(),
            3..=5 => self.heartbeat(),
            6..=7 => self.batch(&[]),
            8 => self.take_due(),
            _ => self.forget(),
        }
        self.compare();
    }

    fn pass_time(&mut self) {
        self.now += match self.random.u8(..20) {
            0..=8 => self.random.u64(..3),
            9..=15 => self.random.u64(..40),
            16..=18 => self.random.u64(..400),
            _ => self.random.u64(..4_000),
        };
    }

    fn some_lease(&mut self) -> LeaseId {
        let recent = self.leases.len().saturating_sub(60);
        match self.random.u8(..20) {
            0 => LeaseId::from_bits(self.random.u64(..)),
            1 => LeaseId::from_bits(self.random.u64(..1 << 24)),
            2 => self.random.choice(&self.leases).copied().unwrap_or(LeaseId::from_bits(1)),
            _ => {
                let recent = &self.leases[recent..];
                self.random.choice(recent).copied().unwrap_or(LeaseId::from_bits(0))
            }
        }
    }

    fn heartbeat(&mut self) {
        for _ in 0..self.random.usize(1..30) {
            let lease = self.some_lease();
            // A thread may renew late, with a time that it read before.
            let at = self.now.saturating_sub(self.random.u64(..3));
            let entry = self.model.entries.values_mut().find(|entry| entry.lease == lease);
            assert_eq!(self.table.renew(lease, Tick(at)), entry.is_some(), "{lease:?}");
            if let Some(entry) = entry
                && (at > entry.renewed_at || entry.is_suspect())
            {
                entry.renew(at);
            }
        }
    }

    fn some_identity(&mut self) -> Identity {
        let service = ["a/one", "a/two", "b/one", "b/three"][self.random.usize(..4)];
        (key(service), id(&format!("i{:02}", self.random.u8(..14))))
    }

    fn some_target(&mut self) -> Target {
        if self.random.bool() {
            return Target::Lease(self.some_lease());
        }
        let (service, id) = self.some_identity();
        Target::Identity(service, id)
    }

    fn some_command(&mut self) -> Command {
        match self.random.u8(..17) {
            0 => {
                let namespace = name(["a", "b"][self.random.usize(..2)]);
                Command::Release { namespace, count_max: self.random.usize(1..5) }
            }
            1..=8 => {
                let (service, id) = self.some_identity();
                let content = content(self.random.u16(1..3));
                let terms = terms(self.random.u64(1_000..4_000));
                let instances_max = self.random.bool().then(|| self.random.usize(5..30));
                Command::Register { service, id, content, terms, instances_max }
            }
            9..=12 => {
                let entries = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
                let patch = match self.random.u8(..6) {
                    0 => Patch { status: Some(Status::Draining), ..Patch::default() },
                    1 => Patch { status: Some(Status::Up), ..Patch::default() },
                    2 => weight(self.random.u32(99..102)),
                    3 => Patch { metadata: Some(Metadata::new(&entries)), ..zone("z") },
                    4 => Patch { zone: Some(None), ..Patch::default() },
                    _ => Patch::default(),
                };
                Command::Update { target: self.some_target(), patch }
            }
            _ => Command::Deregister { target: self.some_target() },
        }
    }

    /// Plans due leases among some commands, and absorbs the plan or drops it.
    fn batch(&mut self, due_leases: &[Due]) {
        let count = self.random.usize(usize::from(due_leases.is_empty())..6);
        let mut commands: Vec<_> = (0..count).map(|_| self.some_command()).collect();
        for due in due_leases {
            let index = self.random.usize(..=commands.len());
            commands.insert(index, Command::Enforce(*due));
        }
        let now = Now { tick: Tick(self.now), wall: WallTime(self.random.u64(..)) };
        let absorbed_at = self.now + self.random.u64(..30);
        let mut trial = Trial::new(self.model.clone(), now, absorbed_at);
        let (transitions, granted) = plan(&self.registry, &mut trial, commands);
        self.now = absorbed_at;
        if self.random.u8(..4) == 0 {
            self.drop_plan(due_leases);
        } else {
            self.model = trial.model;
            self.leases.extend(granted);
            self.absorb(transitions, trial.changes);
        }
    }

    fn absorb(&mut self, transitions: Vec<Transition>, expected: Vec<Option<Expectation>>) {
        assert_eq!(transitions.len(), expected.len(), "{transitions:?}");
        for (transition, expected) in transitions.into_iter().zip(expected) {
            let absorbed = self.registry.absorb(transition, Tick(self.now));
            let seen =
                absorbed.map(|absorbed| (Change::clone(&absorbed.change), absorbed.previous));
            let ttl_ms = expected.as_ref().map_or(0, |expected| expected.ttl_ms);
            assert_eq!(seen, expected.map(|expected| (expected.change, expected.previous)));
            if let Some((change, _)) = seen {
                assert_eq!(change.revision(), self.registry.revision());
                self.model.record(&change, ttl_ms, self.now);
                fold(&mut self.folded, &change);
                self.model.forget_events(&self.folded);
            }
        }
    }

    fn drop_plan(&mut self, due_leases: &[Due]) {
        self.registry.reinstate(due_leases, Tick(self.now));
        for due in due_leases {
            let Due::Expired { lease, .. } = due else { continue };
            let entry =
                self.model.entries.values_mut().find(|entry| entry.lease == *lease).unwrap();
            entry.due_by = self.now + 8;
            if self.random.bool() {
                assert!(self.table.renew(*lease, Tick(self.now)), "{lease:?} was reinstated");
                entry.renew(self.now);
            }
        }
    }

    /// Takes the due leases, and checks that none is early or late.
    fn take_due(&mut self) {
        let visits_max = [1, 3, 1_000][self.random.usize(..3)];
        let (mut due_leases, mut expired, mut renewed) = (Vec::new(), Vec::new(), BTreeSet::new());
        loop {
            let (taken, more) = self.registry.take_due(Tick(self.now), visits_max);
            assert!(taken.len() <= visits_max);
            for due in &taken {
                match due {
                    Due::Expired { lease, reason: RemovalReason::Expired } => {
                        expired.push(*lease);
                    }
                    Due::Renewed { lease } => {
                        assert!(renewed.insert(*lease), "{lease:?} is due twice");
                    }
                    other => panic!("{other:?}"),
                }
            }
            due_leases.extend(taken);
            if !more {
                break;
            }
        }
        for entry in self.model.entries.values() {
            if entry.renewed {
                assert!(renewed.contains(&entry.lease), "missed: {entry:?}");
                assert!(!expired.contains(&entry.lease), "{entry:?}");
            } else if expired.contains(&entry.lease) {
                assert!(
                    self.now > entry.renewed_at + entry.lifetime_ms(),
                    "at {}: {entry:?}",
                    self.now
                );
                assert!(!self.table.renew(entry.lease, Tick(self.now)), "sealed");
            } else {
                assert!(self.now < entry.due_by, "missed at {}: {entry:?}", self.now);
            }
        }
        assert_eq!(expired.iter().collect::<BTreeSet<_>>().len(), expired.len(), "taken twice");
        assert!(expired.iter().all(|l| self.model.entries.values().any(|entry| entry.lease == *l)));
        self.batch(&due_leases);
    }

    fn forget(&mut self) {
        let service = self.some_identity().0;
        let evicted = Revision(self.model.revision.0.saturating_sub(self.random.u64(..5)));
        let has_instances = self.model.entries.keys().any(|(key, _)| *key == service);
        let known = self.model.services.get(&service);
        let ended = !has_instances && known.is_some_and(|revision| *revision <= evicted);
        assert_eq!(self.registry.forget(&service, evicted), ended);
        if ended {
            self.model.services.remove(&service);
        }
    }

    fn compare(&self) {
        let Self { registry, model, .. } = self;
        assert_eq!(registry.revision(), model.revision);
        assert_eq!(registry.instances(), model.entries.len());
        assert_eq!(registry.protected(), model.protected());
        for service in ["a/one", "a/two", "b/one", "b/three"] {
            let service = key(service);
            let found = registry.service(&service);
            assert_eq!(found.map(|found| found.revision), model.services.get(&service).copied());
            let Some(found) = found else { continue };
            let expected = model.entries.iter().filter(|((key, _), _)| *key == service);
            let expected: Vec<_> = expected.map(|(_, entry)| &entry.instance).collect();
            let roster: Vec<_> = found.roster.instances().map(|instance| &**instance).collect();
            assert_eq!(roster, expected);
            assert_eq!(found.roster.len(), expected.len());
            let serves = |i: &&&Instance| i.content.status() == Status::Up;
            let serving = expected.iter().filter(serves).count();
            assert_eq!(found.roster.serving(), serving);
        }
        let folded: Vec<_> = self.folded.values().collect();
        let expected: Vec<_> = model.entries.values().map(|entry| &entry.instance).collect();
        assert_eq!(folded, expected);
    }
}

/// Decides on commands in the registry and in the trial, and compares the outcomes.
fn plan(
    registry: &Registry,
    trial: &mut Trial,
    commands: Vec<Command>,
) -> (Vec<Transition>, Vec<LeaseId>) {
    let mut granted = Vec::new();
    let mut plan = registry.plan(trial.now);
    for command in commands {
        let described = format!("{command:?}");
        let expected = trial.decide(&command);
        let outcome = plan.decide(command);
        assert_eq!(plan.revision(), trial.model.revision, "{described}");
        let seen = match outcome {
            Ok(Outcome::Registered { instance, lease, revision }) => {
                let entries = &mut trial.model.entries;
                assert!(entries.values().all(|s| s.lease != lease && !s.fenced.contains(&lease)));
                entries.get_mut(&identity(&instance)).unwrap().lease = lease;
                granted.push(lease);
                Ok((Some(Instance::clone(&instance)), Some(revision)))
            }
            Ok(Outcome::Updated { instance, revision }) => {
                Ok((Some(Instance::clone(&instance)), Some(revision)))
            }
            Ok(Outcome::Deregistered { revision, .. } | Outcome::Released { revision, .. }) => {
                Ok((None, Some(revision)))
            }
            Ok(Outcome::Enforced) => Ok((None, None)),
            Err(refusal) => Err(refusal),
        };
        assert_eq!(seen, expected, "{described}");
    }
    (plan.into_transitions(), granted)
}

#[test]
fn registry_agrees_with_the_naive_model() {
    let suspects = Cell::new(0);
    with_seeds(8, |seed| {
        let mut pair = Pair::new(seed);
        for _ in 0..5_000 {
            pair.step();
        }
        let granted: BTreeSet<_> = pair.leases.iter().collect();
        assert_eq!(granted.len(), pair.leases.len(), "a lease was granted twice");
        assert!(granted.len() > 500, "few leases were granted");
        suspects.set(suspects.get() + pair.model.suspects);
    });
    assert!(suspects.get() > 100, "few suspects: {suspects:?}");
}
