//! A simulated world: the registry's host, a recorder without faults, nodes with processes and
//! watchers, and the network between them.
//!
//! Invariant: time advances in steps, one host after the other, so that a seed and the actions of
//! each step determine everything that happens.

mod access;
mod faults;
mod hosts;
mod probes;

use std::{collections::BTreeMap, sync::Arc};

use fastrand::Rng;
use tokio::{sync::mpsc, task::AbortHandle};
use waypost::{
    auth::{Gate, HostCheck, TrustCell},
    clock::Clock,
    model::{Limits, WallTime},
    registry::LeaseSeed,
    server::Core,
    store::MemoryStore,
};
use waypost_auth::policy::Policy;
use waypost_client::Service;

use self::faults::Faults;
use crate::{
    access::{
        AccessRules, PROBES, RECORDER_TOKEN, Subject, VIEWER_TOKEN, reader_token, service_token,
    },
    journal::{Identity, Journal},
    machine::Machine,
    network::socket::{Process, incoming},
    network::{Network, REGISTRY},
    oracle::{Oracle, Termination, ViewRecord, Violation},
    software::reader::{Reader, ReadingMode},
    software::replica::{Content, LeaseTerms, Replica},
    time::{HostClock, Millis, STEP_MS, place},
};

/// The host of the recorder and of the probes.
pub(crate) const RECORDER: usize = 1;
/// The first host of replicas and watchers.
pub(crate) const FIRST_NODE: usize = 2;
/// The wall clock when a simulation begins: the first of January 2026.
const BEGINNING: Millis = 1_767_225_600_000;
/// The time for which only the recorder reaches a registry that has started: it must see the whole
/// history.
const GATE_MS: Millis = 200;
/// The interval of checks for overdue events, in steps.
const LOOK_STEPS: u64 = 5;
/// The interval of comparisons of views, in steps.
const VIEW_STEPS: u64 = 20;
/// The policies that wait to be put into force.
const POLICIES: usize = 8;

/// The parameters of a simulated world.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub nodes: usize,
    pub namespaces: Vec<&'static str>,
    pub limits: Limits,
    /// The policy at the start; `None`: everyone may do everything.
    pub rules: Option<AccessRules>,
}

/// A view of the client crate.
struct View {
    record: ViewRecord,
    service: Service,
}

/// A raw watcher.
pub(crate) struct Watcher {
    pub(crate) number: usize,
    pub(crate) node: usize,
    process: Process,
    task: AbortHandle,
}

pub struct World {
    pub(crate) plan: Plan,
    pub now: Millis,
    pub(crate) random: Rng,
    pub(crate) network: Network,
    pub(crate) oracle: Oracle,
    pub(crate) faults: Faults,
    /// The running replicas, by number.
    pub replicas: BTreeMap<usize, Replica>,
    pub(crate) watchers: Vec<Watcher>,
    machines: Vec<Machine>,
    /// Puts policies into force in the registry's present start.
    policies: Option<mpsc::Sender<Policy>>,
    journal: Journal,
    views: Vec<View>,
    replicas_ever: usize,
    probes_ever: u64,
    /// Leases that their processes replaced by others, since the registry started.
    retired: Vec<u64>,
    steps: u64,
}

impl World {
    /// A world in which the registry has just been started.
    pub fn new(plan: Plan) -> Self {
        // Server and client jitter with the thread's own generator.
        fastrand::seed(plan.seed);
        let mut random = Rng::with_seed(plan.seed);
        let hosts = FIRST_NODE + plan.nodes;
        let mut world = Self {
            now: 0,
            network: Network::new(hosts, random.fork()),
            random,
            oracle: Oracle::new(hosts),
            faults: Faults::default(),
            replicas: BTreeMap::new(),
            watchers: Vec::new(),
            machines: (0..hosts).map(|_| Machine::new()).collect(),
            policies: None,
            journal: Journal::default(),
            views: Vec::new(),
            replicas_ever: 0,
            probes_ever: 0,
            retired: Vec::new(),
            steps: 0,
            plan,
        };
        for host in RECORDER..hosts {
            world.machines[host].switch_on(0);
        }
        if let Some(rules) = world.plan.rules.clone() {
            world.oracle.rules_begin(rules);
        }
        world.start_registry();
        let namespaces = world.plan.namespaces.clone();
        for namespace in namespaces.into_iter().chain([PROBES]) {
            let subject = Subject { namespace: namespace.to_owned(), ..Subject::default() };
            world.watch(RECORDER, subject, ReadingMode::Recording, 100);
        }
        world.run(GATE_MS);
        world
    }

    pub fn nodes(&self) -> std::ops::Range<usize> {
        FIRST_NODE..self.machines.len()
    }

    fn system(&self, host: usize) -> (&tokio::runtime::Handle, HostClock) {
        self.machines[host].system()
    }

    // Time.

    /// Lets time pass, until a violation at most.
    pub fn run(&mut self, millis: Millis) {
        let until = self.now + millis;
        while self.now < until && self.oracle.violations.is_empty() {
            self.step();
        }
    }

    fn step(&mut self) {
        let (from, until) = (self.now, self.now + STEP_MS);
        self.network.is_gated = self.is_gated();
        for (host, machine) in self.machines.iter().enumerate() {
            if machine.runs(from) {
                self.network.enter(host);
                place(host, from);
                machine.run(from, until);
            }
        }
        self.network.travel(until);
        self.note_conditions(from);
        self.now = until;
        self.steps += 1;
        for line in self.journal.take() {
            self.oracle.take(line);
        }
        if self.steps.is_multiple_of(LOOK_STEPS) {
            self.look_at_replicas();
            self.oracle.look_for_late();
        }
        if self.steps.is_multiple_of(VIEW_STEPS) {
            self.look_at_views();
        }
    }

    fn note_conditions(&mut self, from: Millis) {
        let conditions = &mut self.oracle.conditions;
        if self.machines[REGISTRY].runs(from) {
            conditions.pass_running();
        } else {
            conditions.pass_standing();
        }
        if !self.machines[REGISTRY].is_on() || self.network.is_gated {
            conditions.hamper(REGISTRY);
        }
        for node in FIRST_NODE..self.machines.len() {
            let clean = |from, to| {
                self.network.link(from, to).is_clean() && !self.network.is_travelling(from, to)
            };
            let links_are_clean = clean(node, REGISTRY) && clean(REGISTRY, node);
            if !links_are_clean || !self.machines[node].runs(from) {
                conditions.hamper(node);
            }
        }
    }

    fn look_at_replicas(&mut self) {
        let now = self.oracle.conditions.now;
        let mut left = Vec::new();
        for (number, replica) in &mut self.replicas {
            let before = replica.leases.len();
            self.retired.extend(replica.look_at_lease());
            let identity = &replica.identity;
            for lease in &replica.leases[before..] {
                self.oracle.note_lease(*lease, identity.clone());
            }
            if let Some(refused) = replica.refused() {
                let identity = &identity.clone();
                if !self.oracle.may_be_refused(identity, replica.born_at) {
                    self.oracle.wrong(format!("{identity} was refused: {refused}"));
                } else if !replica.accept_refusal() {
                    let end = Termination::PowerLost;
                    self.oracle.membership.ended(identity, *number, end, now);
                    left.push(*number);
                }
            }
            if let Some((_, said)) = replica.left() {
                let end = if said {
                    Termination::Deregistered
                } else {
                    Termination::DeregisteredUnconfirmed
                };
                self.oracle.membership.ended(&replica.identity, *number, end, now);
                left.push(*number);
            }
        }
        for number in left {
            self.replicas.remove(&number);
        }
    }

    fn look_at_views(&mut self) {
        for view in &mut self.views {
            let snapshot = view.service.snapshot();
            self.oracle.look_at_view(&mut view.record, snapshot.as_deref());
        }
    }

    // The registry.

    /// Starts it; it remembers nothing.
    pub fn start_registry(&mut self) {
        let port = self.network.next_port();
        self.machines[REGISTRY].switch_on(self.now);
        self.network.enter(REGISTRY);
        let limits = self.plan.limits.clone();
        let wall = WallTime(BEGINNING + self.now);
        let seed = LeaseSeed::repeatable(self.random.u64(..));
        let policy = self.plan.rules.as_ref().map(AccessRules::policy);
        let (policies, mut replacements) = mpsc::channel(POLICIES);
        let (runtime, _) = self.machines[REGISTRY].system();
        runtime.spawn(async move {
            let clock = Clock::simulated(wall);
            let gate = match policy {
                None => Gate::open(clock, HostCheck::None),
                Some(policy) => {
                    let trust = TrustCell::of_clear_text(policy, clock.wall());
                    Gate::new(clock, Arc::new(trust), HostCheck::None)
                }
            };
            let core = Core::new(limits, clock, seed, gate).await;
            let (store, loaded) = MemoryStore::open();
            core.start(store, loaded).await.expect("nothing is stored");
            let connections = incoming(port).await;
            let replacing = async {
                while let Some(policy) = replacements.recv().await {
                    core.replace_policy(policy);
                }
                std::future::pending::<()>().await;
            };
            core.run(connections, replacing).await.expect("it serves on");
        });
        self.policies = Some(policies);
        // The recorder does not wait for connections of the past.
        self.network.forget_connections(RECORDER);
        self.oracle.conditions.registry_began();
        self.retired.clear();
    }

    /// True while only the recorder reaches the registry, just after its start.
    fn is_gated(&self) -> bool {
        let conditions = &self.oracle.conditions;
        conditions.now.run < conditions.began.run + GATE_MS
    }

    pub fn replicas_on(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        self.replicas.iter().filter(move |(_, one)| one.node == node).map(|(number, _)| *number)
    }

    /// Starts a process that registers.
    pub fn register(
        &mut self,
        node: usize,
        identity: Identity,
        terms: LeaseTerms,
        content: Content,
    ) -> usize {
        let number = self.replicas_ever;
        self.replicas_ever += 1;
        self.network.enter(node);
        let now = self.oracle.conditions.now;
        self.oracle.membership.born(&identity, number, node, terms, now);
        let token = service_token(&(identity.namespace.clone(), identity.service.clone()));
        let process = self.process(&token);
        let system = self.system(node);
        let replica = Replica::start(system, identity, node, terms, content, process);
        self.replicas.insert(number, replica);
        number
    }

    /// Ends a process with `kill -9`.
    pub fn kill(&mut self, number: usize) {
        let Some(replica) = self.replicas.remove(&number) else { return };
        self.faults.note(self.now, "process killed", &format!("{number}: {}", replica.identity));
        self.network.enter(replica.node);
        replica.kill();
        let now = self.oracle.conditions.now;
        self.oracle.membership.ended(&replica.identity, number, Termination::Killed, now);
    }

    pub fn update(&mut self, number: usize, content: Content) {
        let now = self.oracle.conditions.now;
        let Some(replica) = self.replicas.get_mut(&number) else { return };
        self.oracle.membership.updated(&replica.identity, now);
        replica.update(content);
    }

    pub(crate) fn close(&mut self, number: usize) {
        let now = self.oracle.conditions.now;
        let Some(replica) = self.replicas.get_mut(&number) else { return };
        replica.close();
        if replica.leaving {
            self.oracle.membership.leaving(&replica.identity, number, now);
        }
    }

    // Watchers.

    /// Starts a raw watcher.
    pub fn watch(&mut self, node: usize, subject: Subject, mode: ReadingMode, resumes_percent: u8) {
        let number = self.oracle.add_reader(node, subject.clone(), mode);
        let random = self.random.fork();
        let (runtime, clock) = self.system(node);
        let process = match node {
            RECORDER => self.process(RECORDER_TOKEN),
            _ => self.process(&reader_token(node)),
        };
        let reader = Reader {
            number,
            subject,
            mode,
            resumes_percent,
            process: process.clone(),
            clock,
            journal: self.journal.clone(),
            random,
        };
        let task = runtime.spawn(reader.run()).abort_handle();
        self.watchers.push(Watcher { number, node, process, task });
    }

    /// The raw watchers that can be stopped, by their index for [`Self::stop_watching`].
    pub(crate) fn watchers_on_nodes(&self) -> Vec<usize> {
        let nodes = self.watchers.iter().enumerate().filter(|(_, one)| one.node != RECORDER);
        nodes.map(|(index, _)| index).collect()
    }

    /// True where a node has views of the client crate.
    pub(crate) fn has_views(&self, node: usize) -> bool {
        self.views.iter().any(|view| view.record.node == node)
    }

    /// Ends a raw watcher.
    pub(crate) fn stop_watching(&mut self, index: usize) {
        let watcher = self.watchers.swap_remove(index);
        self.oracle.drop_reader(watcher.number);
        self.network.enter(watcher.node);
        watcher.process.kill();
        watcher.task.abort();
    }

    /// Starts a process of the client crate that follows services of a namespace.
    pub fn view(&mut self, node: usize, namespace: &str, services: &[&str]) {
        self.network.enter(node);
        let process = self.process(VIEWER_TOKEN);
        let client = process.client().namespace(namespace).build().expect("the URL is good");
        let runtime = self.system(node).0.clone();
        let _entered = runtime.enter();
        for service in services {
            let subject = Subject {
                namespace: namespace.to_owned(),
                services: vec![(*service).to_owned()],
                ..Subject::default()
            };
            let record = ViewRecord::new(node, subject, self.now);
            let service = client.service(service);
            self.views.push(View { record, service });
        }
    }

    // Probes.

    /// Compares everything with the truth. There were no faults for a while.
    pub fn look_at_peace(&mut self) {
        let live = self.replicas.iter().filter(|(_, replica)| !replica.leaving);
        let wanted = live.map(|(number, replica)| (*number, replica.content.clone())).collect();
        self.look_at_views();
        self.oracle.look_at_peace(&wanted);
    }

    /// The violation with everything needed to understand it.
    pub fn violation(&self) -> Option<String> {
        let Violation { at, what } = self.oracle.violations.first()?;
        let changes: Vec<_> = self.oracle.recent().map(|one| format!("\n    {one}")).collect();
        let recent: Vec<_> = self.faults.recent().map(|fault| format!("\n    {fault}")).collect();
        let seed = self.plan.seed;
        Some(format!(
            "seed {seed}, at {at} ms: {what}\n  faults before:{}\n  changes before:{}",
            recent.concat(),
            changes.concat()
        ))
    }
}

impl Drop for World {
    /// Sockets close in the network, so the hosts end before it.
    fn drop(&mut self) {
        for host in 0..self.machines.len() {
            self.switch_off(host);
        }
    }
}
