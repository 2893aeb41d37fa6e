//! The registry against a naive model of it: no plan, no wheel, no slots, no chunks, just what each
//! command means. Besides that one test for each rule that is easily broken.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use fastrand::Rng;

use super::{
    Command, Due, ExpiryShare, LeaseTable, Now, Outcome, Patch, ProtectedNamespace, Refusal,
    Registry, StreamId, Target, Transition,
};
use crate::{
    model::{
        Change, ChangeKind, Content, Instance, LeaseId, LeaseTerms, Limits, Metadata, Name, Parts,
        Presence, RemovalReason, Revision, ServiceKey, Status, Tick, WallTime,
    },
    testing::{
        Identity, content, fold, id, identity, key, name, parts, terms, weight, with_seeds, zone,
    },
};

/// An empty registry with room for so many instances.
fn registry(server: u8, seed: u64, instances_max: usize) -> Registry {
    let protection_hold_max = Duration::from_millis(HOLD_MS);
    Registry::new(server, seed, &Limits { instances_max, protection_hold_max, ..Limits::default() })
}

// ---------------------------------------------------------------------------------------------
// The model

/// Everything that is registered, naively.
#[derive(Debug, Clone, Default)]
struct Model {
    stays: BTreeMap<Identity, Stay>,
    /// The services known, and the revision of their last change.
    services: BTreeMap<ServiceKey, Revision>,
    revision: Revision,
    /// What happened to the leases of each namespace that has instances.
    pasts: BTreeMap<Name, Vec<Event>>,
    /// The namespaces that have suspects: since when, the latest, and why.
    holds: BTreeMap<Name, (u64, u64, ExpiryShare)>,
    /// How many suspects there ever were.
    suspects: usize,
}

/// What happened to leases at some time.
#[derive(Debug, Clone, Copy)]
struct Event {
    at: u64,
    /// By how many more of them live.
    living: i64,
    /// How many ran out.
    expired: i64,
}

/// An identity's time in the registry.
#[derive(Debug, Clone)]
struct Stay {
    instance: Instance,
    lease: LeaseId,
    /// Its earlier leases.
    fenced: BTreeSet<LeaseId>,
    ttl_ms: u64,
    /// When it was renewed; while it is held, when that began.
    renewed_at: u64,
    /// A suspect was renewed.
    returned: bool,
    /// When a look finds it expired at the latest.
    due_by: u64,
}

impl Stay {
    /// Buckets of the wheel span 8 ms, and a lease lives through its last millisecond.
    const SLACK_MS: u64 = 8 + 1;

    fn renew(&mut self, now: u64) {
        if now > self.renewed_at {
            self.renewed_at = now;
        }
        self.returned = self.is_suspect();
        self.due_by = self.renewed_at + self.ttl_ms + Self::SLACK_MS;
    }

    fn is_suspect(&self) -> bool {
        self.instance.presence == Presence::Suspect
    }

    /// How long it lives as it stands.
    fn life_ms(&self) -> u64 {
        if self.is_suspect() && !self.returned { HOLD_MS } else { self.ttl_ms }
    }
}

/// A copy of the model that commands are tried on.
struct Draft {
    model: Model,
    now: Now,
    absorbed_at: u64,
    room: usize,
    /// For each transition what is seen of it.
    changes: Vec<Option<Expectation>>,
    /// How many leases of each namespace ran out.
    expired: BTreeMap<Name, i64>,
    /// The slots of the suspects that there were before, and that have not been renewed.
    held: BTreeSet<u32>,
}

/// What is seen of a transition.
struct Expectation {
    change: Change,
    /// The service's revision before.
    previous: Revision,
    /// The lease's TTL.
    ttl_ms: u64,
}

type Expected = Result<(Option<Instance>, Option<Revision>), Refusal>;

impl Draft {
    fn new(model: Model, now: Now, absorbed_at: u64) -> Self {
        let room = INSTANCES_MAX - model.stays.len();
        let suspects = model.stays.values().filter(|stay| stay.is_suspect() && !stay.returned);
        let held = suspects.map(|stay| stay.lease.slot()).collect();
        let expired = BTreeMap::new();
        Self { model, now, absorbed_at, room, changes: Vec::new(), expired, held }
    }

    fn decide(&mut self, command: &Command) -> Expected {
        match command {
            Command::Register { service, id, content, terms } => {
                self.register(&(service.clone(), id.clone()), content, *terms)
            }
            Command::Update { target, patch } => {
                let place = self.model.find(target)?;
                let content = patch.apply(&self.model.stays[&place].instance.content);
                self.put_content(&place, content);
                let instance = self.model.stays[&place].instance.clone();
                Ok((Some(instance), Some(self.model.revision)))
            }
            Command::Deregister { target } => {
                let place = self.model.find(target)?;
                let by_itself = matches!(target, Target::Lease(_));
                let (own, others) = (RemovalReason::Deregistered, RemovalReason::Evicted);
                self.remove(&place, if by_itself { own } else { others });
                Ok((None, Some(self.model.revision)))
            }
            Command::Enforce(due) => {
                if let Ok(place) = self.model.find(&Target::Lease(due.lease())) {
                    self.enforce(&place, *due);
                }
                Ok((None, None))
            }
            Command::Release { namespace, count_max } => {
                let suspects = self.model.stays.iter().filter(|((service, _), stay)| {
                    service.namespace == *namespace
                        && stay.is_suspect()
                        && self.held.contains(&stay.lease.slot())
                });
                let mut suspects: Vec<_> =
                    suspects.map(|(place, stay)| (stay.lease.slot(), place.clone())).collect();
                suspects.sort();
                for (_, place) in suspects.iter().take(*count_max) {
                    self.remove(place, RemovalReason::Evicted);
                }
                Ok((None, Some(self.model.revision)))
            }
        }
    }

    fn enforce(&mut self, place: &Identity, due: Due) {
        let namespace = &place.0.namespace;
        let stay = &self.model.stays[place];
        match due {
            Due::Renewed { .. } => {
                self.put_presence(place, Presence::Confirmed);
                let absorbed_at = self.absorbed_at;
                let stay = self.model.stays.get_mut(place).unwrap();
                stay.returned = false;
                stay.due_by = stay.due_by.max(absorbed_at + Stay::SLACK_MS);
            }
            Due::Expired { reason, .. } if stay.is_suspect() => self.remove(place, reason),
            Due::Expired { reason, .. } => {
                let planned = self.expired.entry(namespace.clone()).or_default();
                let share =
                    self.model.expiry_share(namespace, stay.ttl_ms, self.now.tick.0, *planned);
                *planned += 1;
                if share.expired < 10 || f64::from(share.expired) <= 0.3 * f64::from(share.of) {
                    return self.remove(place, reason);
                }
                self.put_presence(place, Presence::Suspect);
                let absorbed_at = self.absorbed_at;
                let stay = self.model.stays.get_mut(place).unwrap();
                stay.renewed_at = absorbed_at;
                stay.due_by = absorbed_at + HOLD_MS + Stay::SLACK_MS;
                self.model.suspects += 1;
            }
        }
    }

    fn put_presence(&mut self, place: &Identity, presence: Presence) {
        let revision = self.model.revision.next();
        let instance = &mut self.model.stays.get_mut(place).unwrap().instance;
        let before = Arc::new(instance.clone());
        instance.presence = presence;
        instance.modified = revision;
        let after = instance.clone();
        self.emit(ChangeKind::Updated { before, replaced: false }, after);
    }

    /// The lease is filled in later: the model can't guess it.
    fn register(&mut self, place: &Identity, content: &Content, terms: LeaseTerms) -> Expected {
        let ttl_ms = u64::try_from(terms.ttl.as_millis()).unwrap();
        if let Some(stay) = self.model.stays.get_mut(place) {
            stay.fenced.insert(stay.lease);
            stay.ttl_ms = ttl_ms;
            stay.returned = false;
            let before = Arc::new(stay.instance.clone());
            let after = Instance {
                content: content.clone(),
                presence: Presence::Confirmed,
                ..stay.instance.clone()
            };
            if after == *before {
                self.changes.push(None);
            } else {
                let after = Instance { modified: self.model.revision.next(), ..after };
                stay.instance = after.clone();
                let replaced = before.content != after.content;
                self.emit(ChangeKind::Updated { before, replaced }, after);
            }
        } else {
            if self.room == 0 {
                return Err(Refusal::Full { instances_max: INSTANCES_MAX });
            }
            self.room -= 1;
            let revision = self.model.revision.next();
            let instance = Instance {
                service: Arc::new(place.0.clone()),
                id: place.1.clone(),
                content: content.clone(),
                presence: Presence::Confirmed,
                created: revision,
                modified: revision,
                registered_at: self.now.wall,
            };
            let lease = LeaseId::from_bits(0);
            let fenced = BTreeSet::new();
            let stay = Stay {
                instance: instance.clone(),
                lease,
                fenced,
                ttl_ms,
                renewed_at: 0,
                returned: false,
                due_by: 0,
            };
            self.model.stays.insert(place.clone(), stay);
            self.emit(ChangeKind::Added, instance);
        }
        let stay = self.model.stays.get_mut(place).unwrap();
        stay.renewed_at = self.absorbed_at;
        stay.renew(self.absorbed_at);
        Ok((Some(stay.instance.clone()), Some(self.model.revision)))
    }

    fn put_content(&mut self, place: &Identity, content: Content) {
        let revision = self.model.revision.next();
        let instance = &mut self.model.stays.get_mut(place).unwrap().instance;
        if instance.content != content {
            let before = Arc::new(instance.clone());
            instance.content = content;
            instance.modified = revision;
            let after = instance.clone();
            self.emit(ChangeKind::Updated { before, replaced: false }, after);
        }
    }

    fn remove(&mut self, place: &Identity, reason: RemovalReason) {
        let mut instance = self.model.stays.remove(place).unwrap().instance;
        instance.modified = self.model.revision.next();
        self.emit(ChangeKind::Removed(reason), instance);
    }

    fn emit(&mut self, kind: ChangeKind, instance: Instance) {
        self.model.revision = instance.modified;
        let service = ServiceKey::clone(&instance.service);
        let previous = self.model.services.insert(service, instance.modified).unwrap_or_default();
        let ttl_ms = self.model.stays.get(&identity(&instance)).map_or(0, |stay| stay.ttl_ms);
        let change = Change { kind, instance: Arc::new(instance) };
        self.changes.push(Some(Expectation { change, previous, ttl_ms }));
    }
}

impl Model {
    /// What was expired in the window that is as long as `ttl_ms`.
    fn expiry_share(&self, namespace: &Name, ttl_ms: u64, now: u64, planned: i64) -> ExpiryShare {
        let begin = now.saturating_sub(ttl_ms);
        let past = self.pasts.get(namespace).map(Vec::as_slice).unwrap_or_default();
        // The past is kept in moments of 32 ms.
        let before = |event: &&Event| event.at / 32 <= begin / 32;
        let then: i64 = past.iter().filter(before).map(|event| event.living).sum();
        let expired: i64 = past.iter().filter(|e| !before(e)).map(|event| event.expired).sum();
        let living: i64 = past.iter().map(|event| event.living).sum();
        let count = |count: i64| u32::try_from(count).unwrap();
        let of = if past.is_empty() { planned } else { then.max(living + expired) };
        let within = Duration::from_millis(now - begin);
        ExpiryShare { expired: count(expired + planned), of: count(of), within }
    }

    /// Takes note of what an absorbed change means for protection.
    fn note(&mut self, change: &Change, ttl_ms: u64, at: u64) {
        let namespace = change.instance.service.namespace.clone();
        let suspect = change.instance.presence == Presence::Suspect;
        let (living, expired) = match &change.kind {
            ChangeKind::Added => (1, 0),
            ChangeKind::Updated { before, .. } if before.presence != change.instance.presence => {
                if suspect {
                    (-1, 1)
                } else {
                    (1, 0)
                }
            }
            ChangeKind::Updated { .. } => (0, 0),
            ChangeKind::Removed(_) if suspect => (0, 0),
            ChangeKind::Removed(RemovalReason::Expired | RemovalReason::Disconnected) => (-1, 1),
            ChangeKind::Removed(_) => (-1, 0),
        };
        if suspect && expired == 1 {
            let why = self.expiry_share(&namespace, ttl_ms, at, 0);
            let hold = self.holds.entry(namespace.clone()).or_insert((at, at, why));
            hold.1 = at;
        }
        self.pasts.entry(namespace).or_default().push(Event { at, living, expired });
    }

    /// Forgets what no longer has consequences, given who is there.
    fn forget_pasts(&mut self, there: &BTreeMap<Identity, Instance>) {
        let within = |namespace: &Name| {
            let namespace = namespace.clone();
            there.values().filter(move |i| i.service.namespace == namespace)
        };
        self.pasts.retain(|namespace, _| within(namespace).next().is_some());
        self.holds.retain(|n, _| within(n).any(|i| i.presence == Presence::Suspect));
    }

    fn protected(&self) -> Vec<ProtectedNamespace> {
        let held = |namespace: &Name| {
            let stays = self.stays.iter();
            stays.filter(|((key, _), s)| key.namespace == *namespace && s.is_suspect()).count()
        };
        let protected = |(namespace, (since, latest, why)): (&Name, &(u64, u64, ExpiryShare))| {
            let (since, until) = (Tick(*since), Tick(latest + HOLD_MS));
            ProtectedNamespace {
                namespace: namespace.clone(),
                held: held(namespace),
                since,
                until,
                why: *why,
            }
        };
        self.holds.iter().map(protected).collect()
    }

    fn find(&self, target: &Target) -> Result<Identity, Refusal> {
        match target {
            Target::Identity(service, id) => {
                let place = (service.clone(), id.clone());
                let missing = Refusal::NoSuchInstance { service: place.0.clone(), id: id.clone() };
                if self.stays.contains_key(&place) { Ok(place) } else { Err(missing) }
            }
            Target::Lease(lease) => {
                if let Some((place, _)) = self.stays.iter().find(|(_, stay)| stay.lease == *lease) {
                    return Ok(place.clone());
                }
                let fenced = self.stays.values().any(|stay| stay.fenced.contains(lease));
                Err(if fenced { Refusal::Fenced(*lease) } else { Refusal::NoSuchLease(*lease) })
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------
// The registry beside the model

const INSTANCES_MAX: usize = 40;
const HOLD_MS: u64 = 3_000;

struct Pair {
    registry: Registry,
    table: Arc<LeaseTable>,
    model: Model,
    folded: BTreeMap<Identity, Instance>,
    /// All leases that were ever granted.
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
            8 => self.look_for_expired(),
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
            // Threads that renew may come late with a time that they read before.
            let at = self.now.saturating_sub(self.random.u64(..3));
            let stay = self.model.stays.values_mut().find(|stay| stay.lease == lease);
            assert_eq!(self.table.renew(lease, Tick(at)), stay.is_some(), "{lease:?}");
            if let Some(stay) = stay
                && (at > stay.renewed_at || stay.is_suspect())
            {
                stay.renew(at);
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
                Command::Register { service, id, content, terms }
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

    /// Plans the expiries among some commands, and absorbs it all or gives it up.
    fn batch(&mut self, due_leases: &[Due]) {
        let count = self.random.usize(usize::from(due_leases.is_empty())..6);
        let mut commands: Vec<_> = (0..count).map(|_| self.some_command()).collect();
        for due in due_leases {
            let place = self.random.usize(..=commands.len());
            commands.insert(place, Command::Enforce(*due));
        }
        let now = Now { tick: Tick(self.now), wall: WallTime(self.random.u64(..)) };
        let absorbed_at = self.now + self.random.u64(..30);
        let mut draft = Draft::new(self.model.clone(), now, absorbed_at);
        let (transitions, granted) = plan(&self.registry, &mut draft, commands);
        self.now = absorbed_at;
        if self.random.u8(..4) == 0 {
            self.give_up(due_leases);
        } else {
            self.model = draft.model;
            self.leases.extend(granted);
            self.absorb(transitions, draft.changes);
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
                self.model.note(&change, ttl_ms, self.now);
                fold(&mut self.folded, &change);
                self.model.forget_pasts(&self.folded);
            }
        }
    }

    fn give_up(&mut self, due_leases: &[Due]) {
        self.registry.reinstate(due_leases, Tick(self.now));
        for due in due_leases {
            let Due::Expired { lease, .. } = due else { continue };
            let stay = self.model.stays.values_mut().find(|stay| stay.lease == *lease).unwrap();
            stay.due_by = self.now + 8;
            if self.random.bool() {
                assert!(self.table.renew(*lease, Tick(self.now)), "{lease:?} was given back");
                stay.renew(self.now);
            }
        }
    }

    /// Takes out what expired, and checks that it is neither too early nor too late.
    fn look_for_expired(&mut self) {
        let visits_max = [1, 3, 1_000][self.random.usize(..3)];
        let (mut due_leases, mut expired, mut returned) = (Vec::new(), Vec::new(), BTreeSet::new());
        loop {
            let (taken, more) = self.registry.take_due(Tick(self.now), visits_max);
            assert!(taken.len() <= visits_max);
            for due in &taken {
                match due {
                    Due::Expired { lease, reason: RemovalReason::Expired } => {
                        expired.push(*lease);
                    }
                    Due::Renewed { lease } => {
                        assert!(returned.insert(*lease), "{lease:?} returned twice");
                    }
                    other => panic!("{other:?}"),
                }
            }
            due_leases.extend(taken);
            if !more {
                break;
            }
        }
        for stay in self.model.stays.values() {
            if stay.returned {
                assert!(returned.contains(&stay.lease), "overlooked: {stay:?}");
                assert!(!expired.contains(&stay.lease), "{stay:?}");
            } else if expired.contains(&stay.lease) {
                assert!(self.now > stay.renewed_at + stay.life_ms(), "at {}: {stay:?}", self.now);
                assert!(!self.table.renew(stay.lease, Tick(self.now)), "it is sealed");
            } else {
                assert!(self.now < stay.due_by, "overlooked at {}: {stay:?}", self.now);
            }
        }
        assert_eq!(expired.iter().collect::<BTreeSet<_>>().len(), expired.len(), "taken twice");
        assert!(expired.iter().all(|l| self.model.stays.values().any(|stay| stay.lease == *l)));
        self.batch(&due_leases);
    }

    fn forget(&mut self) {
        let service = self.some_identity().0;
        let evicted = Revision(self.model.revision.0.saturating_sub(self.random.u64(..5)));
        let lives = self.model.stays.keys().any(|(key, _)| *key == service);
        let known = self.model.services.get(&service);
        let ended = !lives && known.is_some_and(|revision| *revision <= evicted);
        assert_eq!(self.registry.forget(&service, evicted), ended);
        if ended {
            self.model.services.remove(&service);
        }
    }

    fn compare(&self) {
        let Self { registry, model, .. } = self;
        assert_eq!(registry.revision(), model.revision);
        assert_eq!(registry.instances(), model.stays.len());
        assert_eq!(registry.protected(), model.protected());
        for service in ["a/one", "a/two", "b/one", "b/three"] {
            let service = key(service);
            let found = registry.service(&service);
            assert_eq!(found.map(|found| found.revision), model.services.get(&service).copied());
            let Some(found) = found else { continue };
            let expected = model.stays.iter().filter(|((key, _), _)| *key == service);
            let expected: Vec<_> = expected.map(|(_, stay)| &stay.instance).collect();
            let roster: Vec<_> = found.roster.instances().map(|instance| &**instance).collect();
            assert_eq!(roster, expected);
            assert_eq!(found.roster.len(), expected.len());
            let serves = |i: &&&Instance| i.content.status() == Status::Up;
            let serving = expected.iter().filter(serves).count();
            assert_eq!(found.roster.serving(), serving);
        }
        let folded: Vec<_> = self.folded.values().collect();
        let expected: Vec<_> = model.stays.values().map(|stay| &stay.instance).collect();
        assert_eq!(folded, expected);
    }
}

/// Decides on commands with the registry and with the draft, which have to agree.
fn plan(
    registry: &Registry,
    draft: &mut Draft,
    commands: Vec<Command>,
) -> (Vec<Transition>, Vec<LeaseId>) {
    let mut granted = Vec::new();
    let mut plan = registry.plan(draft.now);
    for command in commands {
        let described = format!("{command:?}");
        let expected = draft.decide(&command);
        let answer = plan.decide(command);
        assert_eq!(plan.revision(), draft.model.revision, "{described}");
        let seen = match answer {
            Ok(Outcome::Registered { instance, lease, revision }) => {
                let stays = &mut draft.model.stays;
                assert!(stays.values().all(|s| s.lease != lease && !s.fenced.contains(&lease)));
                stays.get_mut(&identity(&instance)).unwrap().lease = lease;
                granted.push(lease);
                Ok((Some(Instance::clone(&instance)), Some(revision)))
            }
            Ok(Outcome::Updated { instance, revision }) => {
                Ok((Some(Instance::clone(&instance)), Some(revision)))
            }
            Ok(Outcome::Deregistered { revision } | Outcome::Released { revision, .. }) => {
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
fn the_registry_does_what_a_naive_model_does() {
    let suspects = Cell::new(0);
    with_seeds(8, |seed| {
        let mut pair = Pair::new(seed);
        for _ in 0..5_000 {
            pair.step();
        }
        let granted: BTreeSet<_> = pair.leases.iter().collect();
        assert_eq!(granted.len(), pair.leases.len(), "a lease was granted twice");
        assert!(granted.len() > 500, "the test hardly did anything");
        suspects.set(suspects.get() + pair.model.suspects);
    });
    assert!(suspects.get() > 100, "protection was hardly needed: {suspects:?}");
}

// ---------------------------------------------------------------------------------------------
// Rule by rule

fn register(service: &str, instance: &str, content: Content, ttl_ms: u64) -> Command {
    Command::Register { service: key(service), id: id(instance), content, terms: terms(ttl_ms) }
}

fn update(target: Target, patch: Patch) -> Command {
    Command::Update { target, patch }
}

fn deregister(target: Target) -> Command {
    Command::Deregister { target }
}

fn of(service: &str, instance: &str) -> Target {
    Target::Identity(key(service), id(instance))
}

/// What a batch answered, and the changes that it made.
type Done = (Vec<Result<Outcome, Refusal>>, Vec<Arc<Change>>);

fn commit(registry: &mut Registry, tick: u64, commands: Vec<Command>) -> Done {
    let mut plan = registry.plan(Now { tick: Tick(tick), wall: WallTime(tick) });
    let answers = commands.into_iter().map(|command| plan.decide(command)).collect();
    let transitions = plan.into_transitions();
    let absorbed = transitions.into_iter().filter_map(|t| registry.absorb(t, Tick(tick)));
    (answers, absorbed.map(|absorbed| absorbed.change).collect())
}

fn granted(registry: &mut Registry, tick: u64, command: Command) -> LeaseId {
    let (answers, _) = commit(registry, tick, vec![command]);
    match &answers[..] {
        [Ok(Outcome::Registered { lease, .. })] => *lease,
        other => panic!("not registered: {other:?}"),
    }
}

fn refusal(registry: &mut Registry, tick: u64, command: Command) -> Refusal {
    let (mut answers, changes) = commit(registry, tick, vec![command]);
    assert_eq!(changes, [], "a refusal changes nothing");
    answers.remove(0).expect_err("refused")
}

#[test]
fn a_take_over_with_the_same_content_is_seen_by_nobody_and_fences_the_old_lease() {
    let mut registry = registry(0, 1, 10);
    let table = registry.lease_table();
    let old = granted(&mut registry, 0, register("s", "a", content(1), 5_000));
    let again = register("s", "a", content(1), 5_000);
    let (answers, changes) = commit(&mut registry, 100, vec![again]);
    assert_eq!(changes, []);
    let [Ok(Outcome::Registered { instance, lease, revision })] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert_eq!((*revision, instance.modified), (Revision(1), Revision(1)));
    assert_ne!(*lease, old);
    assert!(!table.renew(old, Tick(101)));
    assert!(table.renew(*lease, Tick(101)));
    let fenced = Refusal::Fenced(old);
    assert_eq!(refusal(&mut registry, 101, update(Target::Lease(old), weight(1))), fenced);
    assert_eq!(refusal(&mut registry, 101, deregister(Target::Lease(old))), fenced);
    assert_eq!(registry.revision(), Revision(1));
    assert_eq!(registry.instances(), 1);
}

#[test]
fn a_take_over_with_other_content_is_one_update_that_says_so() {
    let mut registry = registry(0, 1, 10);
    granted(&mut registry, 7, register("s", "a", content(1), 5_000));
    let (_, changes) = commit(&mut registry, 100, vec![register("s", "a", content(2), 5_000)]);
    let [change] = &changes[..] else { panic!("{changes:?}") };
    let ChangeKind::Updated { before, replaced: true } = &change.kind else {
        panic!("{change:?}");
    };
    assert_eq!(before.content, content(1));
    assert_eq!(change.instance.content, content(2));
    let instance = &change.instance;
    assert_eq!((instance.created, instance.modified), (Revision(1), Revision(2)));
    assert_eq!(instance.registered_at, WallTime(7), "the identity is as old as it was");
}

#[test]
fn a_take_over_lives_by_its_own_ttl() {
    let mut registry = registry(0, 1, 10);
    granted(&mut registry, 0, register("s", "long-to-short", content(1), 60_000));
    granted(&mut registry, 0, register("s", "short-to-long", content(1), 1_000));
    let short = granted(&mut registry, 500, register("s", "long-to-short", content(1), 1_000));
    granted(&mut registry, 500, register("s", "short-to-long", content(1), 60_000));
    assert_eq!(registry.take_due(Tick(1_500), 100), (vec![], false));
    assert_eq!(registry.take_due(Tick(1_517), 100), (vec![by_ttl(short)], false));
}

#[test]
fn a_fenced_lease_is_unknown_once_its_identity_is_gone() {
    let mut registry = registry(0, 1, 10);
    let old = granted(&mut registry, 0, register("s", "a", content(1), 5_000));
    granted(&mut registry, 0, register("s", "a", content(1), 5_000));
    commit(&mut registry, 0, vec![deregister(of("s", "a"))]);
    let ask = || deregister(Target::Lease(old));
    assert_eq!(refusal(&mut registry, 0, ask()), Refusal::NoSuchLease(old));
    granted(&mut registry, 0, register("s", "a", content(1), 5_000));
    assert_eq!(refusal(&mut registry, 0, ask()), Refusal::NoSuchLease(old));
}

#[test]
fn what_a_lease_means_does_not_depend_on_how_commands_are_batched() {
    let prepared = || {
        let mut registry = registry(0, 1, 10);
        let fenced = granted(&mut registry, 0, register("s", "a", content(1), 5_000));
        let live = granted(&mut registry, 0, register("s", "a", content(1), 5_000));
        (registry, fenced, live)
    };
    let commands = |fenced, live| {
        vec![
            deregister(of("s", "a")),
            update(Target::Lease(fenced), weight(1)),
            register("s", "a", content(1), 5_000),
            update(Target::Lease(live), weight(1)),
            update(Target::Lease(fenced), weight(1)),
        ]
    };
    let (mut registry, fenced, live) = prepared();
    let unknown = [fenced, live, fenced].map(Refusal::NoSuchLease);
    let refusals = |answers: Vec<Result<Outcome, Refusal>>| -> Vec<_> {
        answers.into_iter().filter_map(Result::err).collect()
    };
    let mut one_by_one = Vec::new();
    for command in commands(fenced, live) {
        one_by_one.extend(refusals(commit(&mut registry, 0, vec![command]).0));
    }
    assert_eq!(one_by_one, unknown);
    let (mut registry, fenced, live) = prepared();
    let at_once = refusals(commit(&mut registry, 0, commands(fenced, live)).0);
    assert_eq!(at_once, unknown);
}

#[test]
fn a_reused_slot_never_revives_an_old_lease() {
    let mut registry = registry(0, 1, 1);
    let table = registry.lease_table();
    let mut ended = BTreeSet::new();
    for round in 0..200 {
        let lease = granted(&mut registry, round, register("s", "a", content(1), 5_000));
        assert_eq!(lease.slot(), 0);
        assert!(!ended.contains(&lease));
        let taken_over = round % 3 == 0;
        let last = if taken_over {
            granted(&mut registry, round, register("s", "a", content(2), 5_000))
        } else {
            lease
        };
        for old in &ended {
            assert!(!table.renew(*old, Tick(round)), "{old:?}");
            let ask = deregister(Target::Lease(*old));
            assert_eq!(refusal(&mut registry, round, ask), Refusal::NoSuchLease(*old));
        }
        ended.extend([lease, last]);
        let (answers, _) = commit(&mut registry, round, vec![deregister(Target::Lease(last))]);
        assert!(answers[0].is_ok());
        assert!(!table.renew(last, Tick(round)));
    }
}

#[test]
fn a_full_registry_refuses_until_a_removal_makes_room() {
    let mut registry = registry(0, 1, 2);
    let third = || register("s", "c", content(1), 5_000);
    let lease = granted(&mut registry, 0, register("s", "a", content(1), 5_000));
    let batch = vec![register("t", "b", content(1), 5_000), third()];
    let (answers, changes) = commit(&mut registry, 0, batch);
    assert!(answers[0].is_ok());
    assert_eq!(answers[1].clone().err(), Some(Refusal::Full { instances_max: 2 }));
    assert_eq!(changes.len(), 1);
    assert_eq!(refusal(&mut registry, 0, third()), Refusal::Full { instances_max: 2 });
    // A take-over needs no room.
    let lease_after = granted(&mut registry, 0, register("s", "a", content(1), 5_000));
    assert_ne!(lease, lease_after);
    commit(&mut registry, 0, vec![deregister(Target::Lease(lease_after))]);
    granted(&mut registry, 0, third());
    assert_eq!(registry.instances(), 2);
}

#[test]
fn a_lease_that_ran_out_cannot_renew_unless_it_is_given_back() {
    let mut registry = registry(0, 1, 10);
    let table = registry.lease_table();
    let lease = granted(&mut registry, 0, register("s", "a", content(1), 1_000));
    let (expired, more) = registry.take_due(Tick(1_017), 100);
    assert_eq!((&expired[..], more), (&[by_ttl(lease)][..], false));
    assert!(!table.renew(lease, Tick(1_017)));
    registry.reinstate(&expired, Tick(1_020));
    assert_eq!(registry.take_due(Tick(1_036), 100).0, [by_ttl(lease)], "due again at once");
    registry.reinstate(&expired, Tick(1_036));
    assert!(table.renew(lease, Tick(1_040)));
    assert_eq!(registry.take_due(Tick(2_040), 100).0, []);
    assert_eq!(registry.take_due(Tick(2_057), 100).0, [by_ttl(lease)]);
    let (_, changes) = commit(&mut registry, 2_057, vec![Command::Enforce(by_ttl(lease))]);
    assert!(matches!(changes[0].kind, ChangeKind::Removed(RemovalReason::Expired)));
    registry.reinstate(&[by_ttl(lease)], Tick(2_060));
    assert!(!table.renew(lease, Tick(2_060)), "what was absorbed is not given back");
    assert_eq!(registry.take_due(Tick(9_000), 100), (vec![], false));
}

#[test]
fn a_registration_in_the_batch_of_its_expiry_is_a_new_stay() {
    let mut registry = registry(0, 1, 10);
    let table = registry.lease_table();
    let lease = granted(&mut registry, 0, register("s", "a", content(1), 1_000));
    assert_eq!(registry.take_due(Tick(2_000), 100).0, [by_ttl(lease)]);
    let batch = vec![Command::Enforce(by_ttl(lease)), register("s", "a", content(1), 1_000)];
    let (answers, changes) = commit(&mut registry, 2_000, batch);
    assert!(matches!(changes[0].kind, ChangeKind::Removed(RemovalReason::Expired)));
    assert!(matches!(changes[1].kind, ChangeKind::Added));
    let Ok(Outcome::Registered { lease: new, .. }) = &answers[1] else { panic!("{answers:?}") };
    assert!(table.renew(*new, Tick(2_001)));
    assert!(!table.renew(lease, Tick(2_001)));
}

#[test]
fn an_update_that_changes_nothing_takes_no_revision() {
    let mut registry = registry(0, 1, 10);
    let lease = granted(&mut registry, 0, register("s", "a", content(1), 5_000));
    for target in [Target::Lease(lease), of("s", "a")] {
        for patch in [Patch::default(), weight(100)] {
            let (answers, changes) = commit(&mut registry, 0, vec![update(target.clone(), patch)]);
            assert_eq!(changes, []);
            let [Ok(Outcome::Updated { instance, revision })] = &answers[..] else {
                panic!("{answers:?}");
            };
            assert_eq!((*revision, instance.modified), (Revision(1), Revision(1)));
        }
    }
    assert_eq!(registry.revision(), Revision(1));
}

#[test]
fn an_update_changes_what_it_names_and_nothing_else() {
    let mut registry = registry(0, 1, 10);
    granted(&mut registry, 0, register("s", "a", content(1), 5_000));
    let (_, changes) = commit(&mut registry, 0, vec![update(of("s", "a"), zone("z"))]);
    let zoned = Parts { zone: Some(name("z")), ..parts(1) };
    assert_eq!(changes[0].instance.content, Content::from(&zoned));
    assert!(matches!(changes[0].kind, ChangeKind::Updated { replaced: false, .. }));
    let (_, changes) = commit(&mut registry, 0, vec![update(of("s", "a"), weight(0))]);
    assert_eq!(changes[0].instance.content, Content::from(&Parts { weight: 0, ..zoned }));
    let unzone = Patch { zone: Some(None), ..Patch::default() };
    let (_, changes) = commit(&mut registry, 0, vec![update(of("s", "a"), unzone)]);
    assert_eq!(changes[0].instance.content, Content::from(&Parts { weight: 0, ..parts(1) }));
}

#[test]
fn a_removal_carries_its_own_revision_and_its_reason() {
    let mut registry = registry(0, 1, 10);
    let a = granted(&mut registry, 0, register("s", "a", content(1), 1_000));
    granted(&mut registry, 0, register("s", "b", content(1), 5_000));
    let c = granted(&mut registry, 0, register("s", "c", content(1), 5_000));
    assert_eq!(registry.take_due(Tick(1_020), 100).0, [by_ttl(a)]);
    let batch =
        vec![Command::Enforce(by_ttl(a)), deregister(of("s", "b")), deregister(Target::Lease(c))];
    let (_, changes) = commit(&mut registry, 1_020, batch);
    let removals: Vec<_> = changes
        .iter()
        .map(|change| (change.kind.clone(), change.instance.modified, change.instance.created))
        .collect();
    let removed = ChangeKind::Removed;
    assert_eq!(
        removals,
        [
            (removed(RemovalReason::Expired), Revision(4), Revision(1)),
            (removed(RemovalReason::Evicted), Revision(5), Revision(2)),
            (removed(RemovalReason::Deregistered), Revision(6), Revision(3)),
        ]
    );
}

#[test]
fn an_abandoned_plan_leaves_no_trace() {
    let mut registry = registry(0, 1, 10);
    let table = registry.lease_table();
    let lease = granted(&mut registry, 0, register("s", "a", content(1), 5_000));
    let mut plan = registry.plan(Now { tick: Tick(1), wall: WallTime(1) });
    for command in [
        update(Target::Lease(lease), weight(1)),
        register("s", "a", content(2), 5_000),
        deregister(of("s", "a")),
        register("t", "b", content(2), 5_000),
    ] {
        plan.decide(command).expect("granted");
    }
    assert_eq!(plan.revision(), Revision(5));
    drop(plan.into_transitions());
    assert_eq!((registry.revision(), registry.instances()), (Revision(1), 1));
    assert!(registry.service(&key("t")).is_none());
    assert!(table.renew(lease, Tick(2)));
    let (_, changes) = commit(&mut registry, 2, vec![register("t", "b", content(2), 5_000)]);
    assert_eq!(changes[0].revision(), Revision(2));
}

#[test]
fn lease_ids_differ_from_process_to_process_and_from_slot_to_slot() {
    let first = |seed| {
        let mut registry = registry(3, seed, 10);
        ["a", "b", "c"].map(|i| granted(&mut registry, 0, register("s", i, content(1), 5_000)))
    };
    let mut generations = BTreeSet::new();
    for seed in 0..100 {
        for (slot, lease) in first(seed).into_iter().enumerate() {
            assert_eq!((lease.server(), lease.slot() as usize), (3, slot));
            generations.insert(lease.generation());
        }
    }
    assert_eq!(generations.len(), 300);
    // A lease of another process names nothing here.
    let mut registry = registry(3, 1, 10);
    granted(&mut registry, 0, register("s", "a", content(1), 5_000));
    let foreign = first(2)[0];
    assert!(!registry.lease_table().renew(foreign, Tick(1)));
    let ask = deregister(Target::Lease(foreign));
    assert_eq!(refusal(&mut registry, 1, ask), Refusal::NoSuchLease(foreign));
}

#[test]
fn an_expiry_is_never_early_and_at_most_17_ms_late() {
    with_seeds(4, |seed| {
        let mut random = Rng::with_seed(seed);
        let mut registry = registry(0, seed, 400);
        let table = registry.lease_table();
        // For each lease: until when its instance renews it, when it did last, its TTL.
        let mut alive = BTreeMap::new();
        for now in 0..8_000 {
            if now < 1_000 && random.u8(..3) == 0 {
                let ttl_ms = random.u64(1_000..1_100);
                let instance = format!("i{now}");
                // Few to a namespace: protection is no matter of this test.
                let service = format!("n{}/s", now % 100);
                let command = register(&service, &instance, content(1), ttl_ms);
                let lease = granted(&mut registry, now, command);
                alive.insert(lease, (now + random.u64(..5_000), now, ttl_ms));
            }
            for (lease, (until, renewed_at, _)) in &mut alive {
                if now < *until && random.u16(..300) == 0 {
                    assert!(table.renew(*lease, Tick(now)) || now > *renewed_at + 1_000);
                    *renewed_at = now.max(*renewed_at);
                }
            }
            let visits_max = 1 + random.usize(..3) * 1_000;
            let (mut expired, mut more) = registry.take_due(Tick(now), visits_max);
            while more {
                let (taken, still_more) = registry.take_due(Tick(now), visits_max);
                expired.extend(taken);
                more = still_more;
            }
            let commands = expired.iter().copied().map(Command::Enforce).collect();
            commit(&mut registry, now, commands);
            for due in expired {
                let Due::Expired { lease, .. } = due else { panic!("{due:?}") };
                let (_, renewed_at, ttl_ms) = alive.remove(&lease).expect("it lived");
                assert!(now > renewed_at + ttl_ms, "early");
            }
            for (_, renewed_at, ttl_ms) in alive.values() {
                assert!(now < renewed_at + ttl_ms + 17, "late");
            }
        }
        assert!(alive.is_empty());
        assert_eq!(registry.instances(), 0);
    });
}

/// A lease that was not renewed for its TTL.
fn by_ttl(lease: LeaseId) -> Due {
    Due::Expired { lease, reason: RemovalReason::Expired }
}

fn by_grace(lease: LeaseId) -> Due {
    Due::Expired { lease, reason: RemovalReason::Disconnected }
}

/// A lease of 60 s with a grace of 1 s, renewed over a stream at 500.
fn streaming() -> (Registry, StreamId, LeaseId) {
    let mut registry = registry(0, 1, 10);
    let mut command = register("s", "a", content(1), 60_000);
    if let Command::Register { terms, .. } = &mut command {
        terms.disconnect_grace = Duration::from_secs(1);
    }
    let lease = granted(&mut registry, 0, command);
    let table = registry.lease_table();
    let stream = table.open_stream();
    assert!(table.renew_over(stream, lease, Tick(500)));
    (registry, stream, lease)
}

#[test]
fn a_lease_whose_stream_broke_has_its_grace_left() {
    let (mut registry, stream, lease) = streaming();
    registry.lease_table().break_stream(stream, lease, Tick(2_000));
    assert_eq!(registry.take_due(Tick(2_100), 100).0, []);
    assert_eq!(registry.take_due(Tick(3_000), 100).0, [], "not before the grace is over");
    assert_eq!(registry.take_due(Tick(3_009), 100).0, [by_grace(lease)]);
    let (_, changes) = commit(&mut registry, 3_009, vec![Command::Enforce(by_grace(lease))]);
    assert!(matches!(changes[0].kind, ChangeKind::Removed(RemovalReason::Disconnected)));
}

#[test]
fn a_renewal_within_the_grace_gives_back_the_ttl() {
    let (mut registry, stream, lease) = streaming();
    let table = registry.lease_table();
    table.break_stream(stream, lease, Tick(2_000));
    assert_eq!(registry.take_due(Tick(2_100), 100).0, []);
    assert!(table.renew(lease, Tick(2_900)));
    assert_eq!(registry.take_due(Tick(62_900), 100).0, []);
    assert_eq!(registry.take_due(Tick(62_917), 100).0, [by_ttl(lease)]);
}

#[test]
fn a_take_over_within_the_grace_ends_it() {
    let (mut registry, stream, lease) = streaming();
    registry.lease_table().break_stream(stream, lease, Tick(2_000));
    let new = granted(&mut registry, 2_500, register("s", "a", content(1), 60_000));
    assert_eq!(registry.take_due(Tick(60_000), 100).0, []);
    assert_eq!(registry.take_due(Tick(62_517), 100).0, [by_ttl(new)]);
}

#[test]
fn a_grace_longer_than_what_is_left_of_the_ttl_does_not_prolong_it() {
    let (mut registry, stream, lease) = streaming();
    registry.lease_table().break_stream(stream, lease, Tick(60_000));
    assert_eq!(registry.take_due(Tick(60_517), 100).0, [by_ttl(lease)]);
}

/// Forty instances of a namespace with a TTL of 2 s, the first `alive` of which renew at 1000, in the
/// order of their leases.
fn forty(alive: usize) -> (Registry, Vec<LeaseId>) {
    let mut registry = registry(0, 1, 100);
    let table = registry.lease_table();
    let mut leases = Vec::new();
    for number in 0..40 {
        let service = ["n/one", "n/two"][number % 2];
        let command = register(service, &format!("i{number:02}"), content(1), 2_000);
        leases.push(granted(&mut registry, 0, command));
    }
    assert!(leases[..alive].iter().all(|lease| table.renew(*lease, Tick(1_000))));
    (registry, leases)
}

/// Draws the consequences of what a look at the given time finds.
fn take_due(registry: &mut Registry, tick: u64) -> Vec<Arc<Change>> {
    let (due_leases, more) = registry.take_due(Tick(tick), 1_000);
    assert!(!more);
    commit(registry, tick, due_leases.into_iter().map(Command::Enforce).collect()).1
}

fn count(changes: &[Arc<Change>], is: impl Fn(&Change) -> bool) -> usize {
    changes.iter().filter(|change| is(change)).count()
}

fn becomes(presence: Presence) -> impl Fn(&Change) -> bool {
    move |change| {
        matches!(&change.kind, ChangeKind::Updated { before, replaced: false }
            if before.presence != presence && change.instance.presence == presence)
    }
}

fn removed(reason: RemovalReason) -> impl Fn(&Change) -> bool {
    move |change| change.kind == ChangeKind::Removed(reason)
}

#[test]
fn leases_beyond_thirty_percent_are_held() {
    let (mut registry, _) = forty(1);
    granted(&mut registry, 0, register("other/s", "a", content(1), 2_000));
    let changes = take_due(&mut registry, 2_016);
    // 12 are 30 % of 40, and the 13th is more. The one of the other namespace is none of them.
    assert_eq!(count(&changes, removed(RemovalReason::Expired)), 13 + 1);
    assert_eq!(count(&changes, becomes(Presence::Suspect)), 26);
    let [protected] = &registry.protected()[..] else { panic!("{:?}", registry.protected()) };
    assert_eq!((protected.namespace.as_str(), protected.held), ("n", 26));
    assert_eq!((protected.since, protected.until), (Tick(2_016), Tick(2_016 + HOLD_MS)));
    let why = ExpiryShare { expired: 13, of: 40, within: Duration::from_secs(2) };
    assert_eq!(protected.why, why);
}

#[test]
fn leases_that_expire_one_by_one_are_removed() {
    let mut registry = registry(0, 1, 100);
    for number in 0..40 {
        // Each a window after the one before.
        let instance = format!("i{number:02}");
        granted(&mut registry, number * 2_100, register("n/s", &instance, content(1), 2_000));
        take_due(&mut registry, number * 2_100 + 2_016);
        assert_eq!((registry.protected(), registry.instances()), (vec![], 0));
    }
}

#[test]
fn deregistrations_do_not_count_as_expired() {
    let (mut registry, leases) = forty(0);
    let batch = leases[..28].iter().map(|lease| deregister(Target::Lease(*lease))).collect();
    commit(&mut registry, 1_500, batch);
    let changes = take_due(&mut registry, 2_016);
    assert_eq!(count(&changes, removed(RemovalReason::Expired)), 12, "30 % of the 40 at first");
    assert_eq!((registry.protected(), registry.instances()), (vec![], 0));
}

#[test]
fn a_held_instance_serves_as_it_did_and_has_the_status_that_it_had() {
    let (mut registry, leases) = forty(0);
    let statuses = [Status::Up, Status::Starting, Status::Draining, Status::Down];
    for (lease, status) in leases.iter().zip(statuses.iter().cycle()) {
        let patch = Patch { status: Some(*status), ..Patch::default() };
        commit(&mut registry, 0, vec![update(Target::Lease(*lease), patch)]);
    }
    let changes = take_due(&mut registry, 2_016);
    let held: Vec<_> = changes.iter().filter(|change| becomes(Presence::Suspect)(change)).collect();
    let mut seen: Vec<_> = held.iter().map(|change| change.instance.content.status()).collect();
    for change in &held {
        let up = change.instance.content.status() == Status::Up;
        assert_eq!(change.instance.serves(), up);
    }
    let table = registry.lease_table();
    let held: Vec<_> = leases.iter().filter(|lease| table.renew(**lease, Tick(3_000))).collect();
    assert_eq!(held.len(), 27, "only those that are held can renew");
    let changes = take_due(&mut registry, 3_008);
    assert_eq!((changes.len(), count(&changes, becomes(Presence::Confirmed))), (27, 27));
    let mut back: Vec<_> = changes.iter().map(|change| change.instance.content.status()).collect();
    for all in [&mut seen, &mut back] {
        all.sort_unstable_by_key(|status| *status as u8);
    }
    assert_eq!(seen, back);
    assert!(statuses.iter().all(|status| seen.contains(status)), "{seen:?}");
    assert_eq!(registry.protected(), []);
    // From here on they live by their TTL as ever.
    assert_eq!(take_due(&mut registry, 5_000), []);
    assert_eq!(take_due(&mut registry, 5_016).len(), 27);
}

#[test]
fn a_suspect_that_registers_again_is_no_suspect() {
    let (mut registry, _) = forty(0);
    take_due(&mut registry, 2_016);
    let roster = &registry.service(&key("n/one")).expect("known").roster;
    let suspect = Arc::clone(roster.instances().next().expect("a suspect"));
    assert_eq!(suspect.presence, Presence::Suspect);
    let again = register("n/one", suspect.id.as_str(), content(1), 2_000);
    let (_, changes) = commit(&mut registry, 3_000, vec![again]);
    assert_eq!(count(&changes, becomes(Presence::Confirmed)), 1, "nothing was replaced");
    assert_eq!(registry.protected()[0].held, 26);
}

#[test]
fn suspects_go_when_the_hold_ends() {
    let (mut registry, _) = forty(0);
    take_due(&mut registry, 2_016);
    assert_eq!(take_due(&mut registry, 2_016 + HOLD_MS), []);
    let changes = take_due(&mut registry, 2_016 + HOLD_MS + 16);
    assert_eq!((changes.len(), count(&changes, removed(RemovalReason::Expired))), (27, 27));
    assert_eq!((registry.protected(), registry.instances()), (vec![], 0));
}

#[test]
fn released_suspects_are_evicted_and_those_who_renewed_meanwhile_are_not() {
    let (mut registry, leases) = forty(0);
    take_due(&mut registry, 2_016);
    let table = registry.lease_table();
    let held = |lease: &&LeaseId| table.is_active(**lease);
    let renewed = *leases.iter().find(held).expect("a suspect");
    assert!(table.renew(renewed, Tick(3_000)));
    let release = || Command::Release { namespace: name("n"), count_max: 20 };
    let (answers, changes) = commit(&mut registry, 3_000, vec![release()]);
    assert!(matches!(answers[..], [Ok(Outcome::Released { count: 20, .. })]), "{answers:?}");
    assert_eq!(count(&changes, removed(RemovalReason::Evicted)), 20);
    let (answers, _) = commit(&mut registry, 3_000, vec![release(), release()]);
    let [Ok(Outcome::Released { count: 6, .. }), Ok(Outcome::Released { count: 0, .. })] =
        answers[..]
    else {
        panic!("{answers:?}");
    };
    let changes = take_due(&mut registry, 3_008);
    assert_eq!(count(&changes, becomes(Presence::Confirmed)), 1);
    assert_eq!((registry.protected(), registry.instances()), (vec![], 1));
}
