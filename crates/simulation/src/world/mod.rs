//! Everything together: the registry's host, a recorder that nothing hampers, nodes with processes
//! and watchers, and the network between them. Time goes on in steps, one host after the other, so
//! that a seed and what is done in which step fix everything that happens.

mod faults;

use std::{collections::BTreeMap, future::Future};

use fastrand::Rng;
use tokio::task::AbortHandle;
use waypost::{
    clock::Clock,
    model::{Limits, WallTime},
    server::Core,
    store::MemoryStore,
};
use waypost_client::{Client, Service, proto::Status};

use self::faults::Faults;
use crate::{
    journal::{Identity, Journal},
    machine::Machine,
    network::socket::{Process, incoming},
    network::{Link, Network, REGISTRY},
    oracle::{End, History, Oracle, ViewRecord, Violation},
    software::probe::{self, Probe},
    software::reader::{Manner, Reader, Subject},
    software::replica::{Content, Replica, Terms},
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

/// The parameters of a simulated world.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub nodes: usize,
    pub namespaces: Vec<&'static str>,
    pub limits: Limits,
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
    /// By number; those that ended are gone.
    pub replicas: BTreeMap<usize, Replica>,
    pub(crate) watchers: Vec<Watcher>,
    machines: Vec<Machine>,
    journal: Journal,
    views: Vec<View>,
    replicas_ever: usize,
    probes_ever: u64,
    /// Leases that their processes gave up for others, since the registry began.
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
        world.start_registry();
        let namespaces = world.plan.namespaces.clone();
        for namespace in namespaces.into_iter().chain([probe::NAMESPACE]) {
            let subject = Subject { namespace: namespace.to_owned(), ..Subject::default() };
            world.watch(RECORDER, subject, Manner::Recording, 100);
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

    /// Lets so much time pass, or less where something is wrong.
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
            self.retired.extend(replica.look_at_lease());
            if let Some(refused) = replica.refused() {
                let identity = &replica.identity;
                self.oracle.wrong(format!("{identity} was refused: {refused}"));
            }
            if let Some((_, said)) = replica.left() {
                let end = if said { End::Left } else { End::LeftUnheard };
                self.oracle.roll.ended(&replica.identity, *number, end, now);
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
        let (runtime, _) = self.system(REGISTRY);
        runtime.spawn(async move {
            let clock = Clock::simulated(wall);
            let core = Core::new(limits, clock).await;
            let (store, loaded) = MemoryStore::open();
            core.start(store, loaded).await.expect("nothing is stored");
            let connections = incoming(port).await;
            core.run(connections, std::future::pending()).await.expect("it serves on");
        });
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

    /// Ends it with `kill -9`.
    pub fn kill_registry(&mut self) {
        self.faults.note(self.now, "registry killed", "");
        self.switch_off(REGISTRY);
    }

    fn switch_off(&mut self, host: usize) {
        self.network.enter(host);
        self.machines[host].switch_off();
    }

    // Faults.

    /// Stops all software of a host for a while.
    pub fn pause(&mut self, host: usize, millis: Millis) {
        let kind = if host == REGISTRY { "registry stopped" } else { "node stopped" };
        self.faults.note(self.now, kind, &format!("host {host} for {millis} ms"));
        self.machines[host].stop_until(self.now + millis);
    }

    /// Cuts the power of a host: its connections end without notice.
    pub fn cut_power(&mut self, host: usize) {
        self.faults.note(self.now, "power lost", &format!("host {host}"));
        self.switch_off(host);
        self.network.forget_connections(host);
        if host == REGISTRY {
            return;
        }
        let now = self.oracle.conditions.now;
        let lost: Vec<_> = self.replicas_on(host).collect();
        for number in lost {
            if let Some(replica) = self.replicas.remove(&number) {
                self.oracle.roll.ended(&replica.identity, number, End::Vanished, now);
            }
        }
        self.views.retain(|view| view.record.node != host);
        for watcher in self.watchers.iter().filter(|watcher| watcher.node == host) {
            self.oracle.drop_reader(watcher.number);
        }
        self.watchers.retain(|watcher| watcher.node != host);
    }

    /// Gives the power back; what runs there has to be started anew.
    pub(crate) fn restore_power(&mut self, host: usize) {
        self.machines[host].switch_on(self.now);
    }

    pub(crate) fn is_on(&self, host: usize) -> bool {
        self.machines[host].is_on()
    }

    /// Sets the link in both directions.
    pub fn set_links(&mut self, node: usize, kind: &'static str, link: &Link) {
        self.faults.note(self.now, kind, &format!("host {node}: {link:?}"));
        self.network.set_link(node, REGISTRY, link.clone());
        self.network.set_link(REGISTRY, node, link.clone());
    }

    /// Sets the link in one direction.
    pub fn set_link(&mut self, from: usize, to: usize, kind: &'static str, link: Link) {
        self.faults.note(self.now, kind, &format!("from host {from} to {to}: {link:?}"));
        self.network.set_link(from, to, link);
    }

    /// Breaks all connections of a node.
    pub fn reset(&mut self, node: usize) {
        self.faults.note(self.now, "connections reset", &format!("host {node}"));
        self.oracle.conditions.hamper(node);
        self.network.reset_connections(node);
    }

    /// Ends all faults.
    pub fn heal(&mut self) {
        for host in 0..self.machines.len() {
            self.machines[host].go_on();
            self.network.set_link(host, REGISTRY, Link::default());
            self.network.set_link(REGISTRY, host, Link::default());
            if !self.machines[host].is_on() && host != REGISTRY {
                self.restore_power(host);
            }
        }
        if !self.machines[REGISTRY].is_on() {
            self.start_registry();
        }
    }

    // Processes.

    pub fn replicas_on(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        self.replicas.iter().filter(move |(_, one)| one.node == node).map(|(number, _)| *number)
    }

    /// Starts a process that registers.
    pub fn register(
        &mut self,
        node: usize,
        identity: Identity,
        terms: Terms,
        content: Content,
    ) -> usize {
        let number = self.replicas_ever;
        self.replicas_ever += 1;
        self.network.enter(node);
        let now = self.oracle.conditions.now;
        self.oracle.roll.born(&identity, number, node, terms, now);
        let replica = Replica::start(self.system(node), identity, node, terms, content);
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
        self.oracle.roll.ended(&replica.identity, number, End::Killed, now);
    }

    pub fn update(&mut self, number: usize, content: Content) {
        let now = self.oracle.conditions.now;
        let Some(replica) = self.replicas.get_mut(&number) else { return };
        self.oracle.roll.updated(&replica.identity, now);
        replica.update(content);
    }

    pub(crate) fn close(&mut self, number: usize) {
        let now = self.oracle.conditions.now;
        let Some(replica) = self.replicas.get_mut(&number) else { return };
        replica.close();
        if replica.leaving {
            self.oracle.roll.leaving(&replica.identity, number, now);
        }
    }

    // Watchers.

    /// Starts a raw watcher.
    pub fn watch(&mut self, node: usize, subject: Subject, manner: Manner, resumes_percent: u8) {
        let number = self.oracle.add_reader(node, subject.clone(), manner);
        let random = self.random.fork();
        let (runtime, clock) = self.system(node);
        let process = Process::default();
        let reader = Reader {
            number,
            subject,
            manner,
            resumes_percent,
            process: process.clone(),
            clock,
            journal: self.journal.clone(),
            random,
        };
        let task = runtime.spawn(reader.run()).abort_handle();
        self.watchers.push(Watcher { number, node, process, task });
    }

    /// The raw watchers that can be ended, as [`Self::stop_watching`] takes them.
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
        let process = Process::default();
        let client = Client::builder()
            .namespace(namespace)
            .connector(process.connector())
            .build()
            .expect("the URL is good");
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

    /// Starts a conversation with the registry, where it is there for all.
    fn probe<F>(&mut self, talk: impl FnOnce(Probe) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if !self.is_on(REGISTRY) || self.is_gated() {
            return;
        }
        self.probes_ever += 1;
        let random = self.random.fork();
        let (_, clock) = self.system(RECORDER);
        let journal = self.journal.clone();
        let (number, process) = (self.probes_ever, Process::default());
        let probe = Probe { number, process, clock, journal, random };
        self.system(RECORDER).0.spawn(talk(probe));
    }

    /// Asks for leases that have to be unknown.
    pub fn probe_retired(&mut self) {
        if !self.retired.is_empty() {
            let leases = self.retired.clone();
            self.probe(|probe| probe.ended(leases));
        }
    }

    pub fn probe_fencing(&mut self) {
        self.probe(Probe::fence);
    }

    pub fn probe_lapse(&mut self) {
        self.probe(Probe::lapse);
    }

    /// Asks how many instances of a namespace are held.
    pub fn probe_protection(&mut self, namespace: &str) {
        let (namespace, held) = (namespace.to_owned(), self.held(namespace) as u64);
        self.probe(|probe| probe.protection(namespace, held));
    }

    /// Lets go of what is held in a namespace, as an operator does.
    pub fn release(&mut self, namespace: &str) {
        let (namespace, held) = (namespace.to_owned(), self.held(namespace) as u64);
        self.probe(|probe| probe.release(namespace, held));
    }

    /// Removes an identity as an operator does.
    pub(crate) fn evict(&mut self, identity: &Identity) {
        let now = self.oracle.conditions.now;
        self.oracle.roll.evicted(identity, now);
        let identity = identity.clone();
        self.probe(|probe| probe.evict(identity));
    }

    // What is to be seen.

    /// The number of instances of a namespace, as the recorder saw them.
    pub fn members(&self, namespace: &str) -> usize {
        let members = self.oracle.present().into_iter().flat_map(|present| present.members.keys());
        members.filter(|identity| identity.namespace == namespace).count()
    }

    /// The number of them that protection holds, whatever their status.
    pub fn held(&self, namespace: &str) -> usize {
        let held = self.oracle.present().into_iter().flat_map(|present| &present.held);
        held.filter(|identity| identity.namespace == namespace).count()
    }

    /// The statuses of those that protection holds, as the registry shows them.
    pub fn held_statuses(&self, namespace: &str) -> Vec<Status> {
        let Some(present) = self.oracle.present() else { return Vec::new() };
        let held = present.held.iter().filter(|identity| identity.namespace == namespace);
        held.filter_map(|identity| present.members.get(identity)).map(|one| one.status()).collect()
    }

    /// The registry's position, as the recorder saw it.
    pub fn revision(&self) -> u64 {
        self.oracle.present().map_or(0, History::revision)
    }

    /// The number of snapshots that readers got because they fell behind.
    pub fn resets(&self) -> u64 {
        self.oracle.resets()
    }

    // The end.

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
