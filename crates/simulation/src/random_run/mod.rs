//! A random run: phases of chaos with random faults of the registry and its users, and phases of
//! peace, in which everything must recover.

mod policy;

use std::collections::BTreeMap;

use fastrand::Rng;
use serde::{Deserialize, Serialize};
use waypost::model::Limits;
use waypost_client::proto::Status;

use self::policy::PolicyRun;
use crate::{
    access::Subject,
    journal::Identity,
    network::{Link, REGISTRY},
    software::reader::ReadingMode,
    software::replica::{Content, LeaseTerms},
    time::Millis,
    world::{Plan, World},
};

const NODES: usize = 4;
const NAMESPACES: [&str; 2] = ["alpha", "beta"];
const SERVICES: [&str; 2] = ["orders", "billing"];
const ZONES: [&str; 3] = ["a", "b", "c"];
/// Identities of each namespace: fewer than mass-expiry protection counts.
const IDENTITIES: usize = 8;
/// Long enough for everything to come right: recovery, the longest TTL, what clients hold.
const PEACE_MS: Millis = 48_000;

/// The results of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    pub seed: u64,
    pub simulated_ms: Millis,
    pub faults: BTreeMap<String, u64>,
    pub checks: u64,
    pub packets: u64,
    /// The same for the same run.
    pub trace: u64,
    pub violation: Option<String>,
}

/// Runs a seed for a number of simulated minutes, or until a violation. The worlds of odd seeds
/// have a policy.
pub fn run(seed: u64, minutes: u64) -> Outcome {
    run_through(RandomRun::new(seed, (seed % 2 == 1).then(|| PolicyRun::new(seed))), minutes)
}

/// Like [`run`], without a policy for any seed.
pub fn run_open(seed: u64, minutes: u64) -> Outcome {
    run_through(RandomRun::new(seed, None), minutes)
}

fn run_through(mut run: RandomRun, minutes: u64) -> Outcome {
    run.tell(minutes * 60_000);
    let world = &run.world;
    Outcome {
        seed: world.plan.seed,
        simulated_ms: world.now,
        faults: world
            .faults
            .counts
            .iter()
            .map(|(kind, count)| ((*kind).to_owned(), *count))
            .collect(),
        checks: world.oracle.checks,
        packets: world.network.packets,
        trace: world.oracle.trace() ^ world.network.packets,
        violation: world.violation(),
    }
}

/// The end of a fault.
#[derive(Debug, Clone, Copy)]
enum Ending {
    Link { from: usize, to: usize },
    Power { host: usize },
    Registry,
}

struct RandomRun {
    world: World,
    random: Rng,
    endings: Vec<(Millis, Ending)>,
    notes: u64,
    /// By how much instances are blown up.
    padding_max: usize,
    /// Where there is a policy.
    policy: Option<PolicyRun>,
}

impl RandomRun {
    fn new(seed: u64, mut policy: Option<PolicyRun>) -> Self {
        let mut random = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (mut limits, mut padding_max) = (Limits::default(), 0);
        if random.bool() {
            // Watchers that stop reading fall behind once the buffers on the way are full; watchers
            // without news do not.
            limits.log_changes_max = random.usize(64..96);
            padding_max = 4_000;
        }
        let rules = policy.as_mut().map(PolicyRun::rules);
        let namespaces = NAMESPACES.to_vec();
        let world = World::new(Plan { seed, nodes: NODES, namespaces, limits, rules });
        Self { world, random, endings: Vec::new(), notes: 0, padding_max, policy }
    }

    fn tell(&mut self, millis: Millis) {
        for node in self.world.nodes() {
            self.settle(node);
        }
        for _ in 0..NODES * 2 {
            self.add_watcher();
        }
        self.world.run(2_000);
        while self.world.now + PEACE_MS < millis && self.goes_on() {
            let chaos_until = (self.world.now + self.random.u64(30_000..100_000))
                .min(millis.saturating_sub(PEACE_MS));
            while self.world.now < chaos_until && self.goes_on() {
                self.end_faults();
                self.act();
                self.act_on_policy();
                self.world.run(self.random.u64(40..1_400));
            }
            self.make_peace();
        }
    }

    fn goes_on(&self) -> bool {
        self.world.oracle.violations.is_empty()
    }

    fn make_peace(&mut self) {
        self.endings.clear();
        self.world.heal();
        self.world.run(if self.policy.is_some() { 400 } else { 0 });
        self.restore_rights();
        self.populate();
        let until = self.world.now + PEACE_MS;
        while self.world.now < until && self.goes_on() {
            match self.random.u8(..4) {
                0 => self.world.probe_lapse(),
                1 => self.world.probe_fencing(),
                _ => self.world.probe_retired(),
            }
            self.act_in_peace();
            self.world.run(4_000);
        }
        if self.goes_on() {
            self.world.look_at_peace();
        }
    }

    /// Starts what a node has always running.
    fn settle(&mut self, node: usize) {
        for namespace in NAMESPACES {
            self.world.view(node, namespace, &SERVICES);
        }
        for _ in 0..2 * IDENTITIES / NODES {
            self.add_replica(node);
        }
    }

    /// Starts what nodes that lost everything should have running.
    fn populate(&mut self) {
        for node in self.world.nodes() {
            if self.world.is_on(node) && !self.world.has_views(node) {
                self.settle(node);
            }
        }
    }

    fn node(&mut self) -> usize {
        self.random.usize(self.world.nodes())
    }

    fn content(&mut self) -> Content {
        self.notes += 1;
        let padding = "x".repeat(self.random.usize(0..=self.padding_max));
        // By the number, so that the random choices that follow stay what they were.
        let status = match self.notes % 7 {
            2 => Status::Starting,
            4 => Status::Draining,
            6 => Status::Down,
            _ => Status::Up,
        };
        Content {
            status,
            weight: self.random.u32(0..200),
            zone: ZONES[self.random.usize(..ZONES.len())].to_owned(),
            note: format!("note-{}{padding}", self.notes),
        }
    }

    /// Starts a replica under a new identity.
    fn add_replica(&mut self, node: usize) {
        for _ in 0..4 {
            let namespace = NAMESPACES[self.random.usize(..NAMESPACES.len())];
            let number = self.random.usize(..IDENTITIES);
            let identity = Identity {
                namespace: namespace.to_owned(),
                service: SERVICES[number % SERVICES.len()].to_owned(),
                id: format!("id-{number}"),
            };
            if !self.world.oracle.membership.is_held(&identity) {
                return self.register(node, identity);
            }
        }
    }

    fn register(&mut self, node: usize, identity: Identity) {
        let ttl_ms = [1_000, 2_000, 3_000, 5_000, 10_000, 15_000][self.random.usize(..6)];
        // Most take the default, which is ample; some are strict.
        let grace_ms = match self.random.u8(..4) {
            0 => self.random.u64(0..=ttl_ms),
            _ => ttl_ms.min(3_000),
        };
        let content = self.content();
        self.world.register(node, identity, LeaseTerms { ttl_ms, grace_ms }, content);
    }

    fn add_watcher(&mut self) {
        let node = self.node();
        if !self.world.is_on(node) {
            return;
        }
        let namespace = NAMESPACES[self.random.usize(..NAMESPACES.len())].to_owned();
        let mut subject = Subject { namespace, ..Subject::default() };
        if self.random.bool() {
            let count = self.random.usize(1..=SERVICES.len());
            subject.services = SERVICES[..count].iter().map(|name| (*name).to_owned()).collect();
        }
        if self.random.u8(..3) == 0 {
            subject.zones = vec![ZONES[self.random.usize(..ZONES.len())].to_owned()];
        }
        let mode = match self.random.u8(..8) {
            0..4 => ReadingMode::Prompt,
            4..7 => ReadingMode::Pausing { pause_max_ms: self.random.u64(2_000..120_000) },
            _ => ReadingMode::Stuck,
        };
        let resumes_percent = [0, 50, 90, 100][self.random.usize(..4)];
        self.world.watch(node, subject, mode, resumes_percent);
    }

    fn any_replica(&mut self) -> Option<usize> {
        let count = self.world.replicas.len();
        let nth = self.random.usize(..count.max(1));
        self.world.replicas.keys().nth(nth).copied()
    }

    fn act(&mut self) {
        self.populate();
        match self.random.u8(..100) {
            0..72 => self.operate(),
            _ => self.disturb(),
        }
    }

    /// Does what users do.
    fn operate(&mut self) {
        let Some(number) = self.any_replica() else {
            let node = self.node();
            if self.world.is_on(node) {
                self.add_replica(node);
            }
            return;
        };
        match self.random.u8(..100) {
            0..45 => {
                let content = self.content();
                self.world.update(number, content);
            }
            45..62 => {
                let node = self.node();
                if self.world.is_on(node) && self.world.replicas.len() < 2 * IDENTITIES {
                    self.add_replica(node);
                }
            }
            62..69 => self.world.kill(number),
            69..73 => self.world.close(number),
            73..76 => self.rival(number),
            76..78 => {
                let identity = self.world.replicas[&number].identity.clone();
                self.world.evict(&identity);
            }
            78..83 => self.change_watchers(),
            83..91 => self.world.probe_lapse(),
            91..96 => self.world.probe_fencing(),
            _ => self.world.probe_retired(),
        }
    }

    /// Lets another process register an identity that has a holder.
    fn rival(&mut self, number: usize) {
        let (identity, node) = (self.world.replicas[&number].identity.clone(), self.node());
        let holders = self.world.replicas.values().filter(|one| one.identity == identity).count();
        if self.world.is_on(node) && holders < 2 {
            self.register(node, identity);
        }
    }

    fn change_watchers(&mut self) {
        let others = self.world.watchers_on_nodes();
        if others.len() > NODES * 2 {
            self.world.stop_watching(others[self.random.usize(..others.len())]);
        } else {
            self.add_watcher();
        }
    }

    /// Lets something go wrong.
    fn disturb(&mut self) {
        let node = self.node();
        match self.random.u8(..100) {
            0..25 => self.world.pause(REGISTRY, self.random.u64(50..2_000)),
            25..28 => self.world.pause(REGISTRY, self.random.u64(2_000..40_000)),
            28..32 => self.end_registry(),
            32..44 => self.world.pause(node, self.random.u64(100..5_000)),
            44..47 => self.world.pause(node, self.random.u64(5_000..30_000)),
            47..50 => self.cut_power(node),
            50..58 => self.world.reset(node),
            58..60 => self.world.nodes().for_each(|node| self.world.reset(node)),
            _ => self.disturb_links(node),
        }
    }

    fn end_registry(&mut self) {
        if self.world.is_on(REGISTRY) {
            if self.random.bool() {
                self.world.kill_registry();
            } else {
                self.world.cut_power(REGISTRY);
            }
            let until = self.world.now + self.random.u64(..15_000);
            self.endings.push((until, Ending::Registry));
        }
    }

    fn cut_power(&mut self, node: usize) {
        if self.world.is_on(node) {
            self.world.cut_power(node);
            let until = self.world.now + self.random.u64(1_000..25_000);
            self.endings.push((until, Ending::Power { host: node }));
        }
    }

    fn disturb_links(&mut self, node: usize) {
        let until = self.world.now + self.random.u64(200..20_000);
        let cut = Link { cut: true, ..Link::default() };
        let ways = [(node, REGISTRY), (REGISTRY, node)];
        let mut affected = ways.to_vec();
        match self.random.u8(..6) {
            0 => self.world.set_links(node, "partition", &cut),
            1 => {
                affected.truncate(1);
                self.world.set_link(node, REGISTRY, "one-way partition", cut);
            }
            2 => {
                affected.remove(0);
                self.world.set_link(REGISTRY, node, "one-way partition", cut);
            }
            3 => {
                let loss_percent = self.random.u8(1..40);
                self.world.set_links(node, "loss", &Link { loss_percent, ..Link::default() });
            }
            4 => {
                let (delay_ms, jitter_ms) = (self.random.u64(..200), self.random.u64(..200));
                let link = Link { delay_ms, jitter_ms, ..Link::default() };
                self.world.set_links(node, "delay", &link);
            }
            _ => self.world.set_links(node, "hold", &Link { held: true, ..Link::default() }),
        }
        let ends = affected.into_iter().map(|(from, to)| (until, Ending::Link { from, to }));
        self.endings.extend(ends);
    }

    fn end_faults(&mut self) {
        let now = self.world.now;
        let mut endings = std::mem::take(&mut self.endings);
        endings.retain(|(at, ending)| {
            if *at <= now {
                match *ending {
                    Ending::Link { from, to } => {
                        self.world.network.set_link(from, to, Link::default());
                    }
                    Ending::Power { host } => self.world.restore_power(host),
                    Ending::Registry => self.world.start_registry(),
                }
            }
            *at > now
        });
        self.endings = endings;
    }
}
