//! The registry, its writers and its watchers, through every kill.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use fastrand::Rng;
use futures_util::future::{join_all, join3};
use tokio::time::sleep;
use waypost_testing::{process::RegistryProcess, tcp::ReservedPort, wait::soon};

use crate::{
    durability::{
        tally::Tally,
        view::{BUSY_SERVICES, EMPTY_SERVICE, NAMESPACES, View},
        watcher::Watcher,
        writer::Writer,
    },
    support::serve,
};

const WRITERS: usize = 8;
/// One of this many starts is killed before it serves.
const STARTS_A_KILL: u8 = 4;
/// The approximate duration of a start.
const START_MS_MAX: u64 = 60;
/// The time of load on the registry.
const LOAD_MS_MIN: u64 = 5;
const LOAD_MS_MAX: u64 = 300;

/// Everybody, and what they came to so far.
pub(crate) struct World {
    random: Rng,
    registry: RegistryProcess,
    /// The port of every start.
    _port: ReservedPort,
    writers: Vec<Writer>,
    /// One of each namespace, so that each change is for one of them, and then another.
    watchers: Vec<Watcher>,
    /// The one history that all of this is about.
    history: Option<String>,
    pub(crate) tally: Tally,
}

impl World {
    /// Starts a registry with a new history, and all its followers.
    pub(crate) async fn start(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let writers = (0..WRITERS).map(|number| Writer::new(number, random.fork())).collect();
        let mut watchers: Vec<_> = NAMESPACES.map(|namespace| Watcher::new(namespace, &[])).into();
        watchers.push(Watcher::new(NAMESPACES[0], &[BUSY_SERVICES[0], EMPTY_SERVICE]));
        let port = ReservedPort::new();
        let registry = serve().listen(port.address()).disk("data").stopped();
        let (history, tally) = (None, Tally::default());
        let mut world = Self { random, registry, _port: port, writers, watchers, history, tally };
        world.start_registry().await;
        world.compare().await;
        world
    }

    /// Load, and a kill in the middle of it.
    pub(crate) async fn endure(&mut self) {
        let mut channels = Vec::with_capacity(WRITERS);
        for _ in 0..WRITERS {
            channels.push(self.registry.channel().await);
        }
        let killed = AtomicBool::new(false);
        let workers = self.writers.iter_mut().zip(channels);
        let writing = join_all(workers.map(|(writer, channel)| writer.work(channel, &killed)));
        let watching = join_all(self.watchers.iter_mut().map(|watcher| watcher.follow(&killed)));
        let load = Duration::from_millis(self.random.u64(LOAD_MS_MIN..=LOAD_MS_MAX));
        let registry = &mut self.registry;
        let killing = async {
            sleep(load).await;
            killed.store(true, Ordering::Relaxed);
            registry.kill().await;
        };
        soon("the end of everybody's connections", join3(writing, watching, killing)).await;
    }

    /// Restarts the registry, and compares it with the acknowledged writes.
    pub(crate) async fn judge(&mut self) {
        self.start_registry().await;
        self.compare().await;
        self.tally.rounds += 1;
        self.tally.resumes += self.watchers.len() as u64;
    }

    async fn start_registry(&mut self) {
        while self.random.u8(..STARTS_A_KILL) == 0 {
            let lives = Duration::from_millis(self.random.u64(..START_MS_MAX));
            self.registry.launch();
            sleep(lives).await;
            self.registry.kill().await;
            self.tally.starts_in_vain += 1;
        }
        self.registry.start().await;
    }

    /// Compares what a quiet registry shows with what everybody knows of it.
    async fn compare(&mut self) {
        let channel = self.registry.channel().await;
        let view = View::read(channel.clone()).await;
        let history = self.history.get_or_insert_with(|| view.cursor.history_id.clone());
        assert_eq!(*history, view.cursor.history_id, "the history goes on");
        let answered = self.writers.iter().map(|writer| writer.ledger.revision);
        let watched = self.watchers.iter().filter_map(Watcher::cursor);
        let highest = answered.chain(watched.map(|cursor| cursor.revision)).max();
        let revision = view.cursor.revision;
        assert!(highest <= Some(revision), "{revision} is before {highest:?}");

        for writer in &mut self.writers {
            let unknown = writer.renew(channel.clone()).await;
            if let Some(outcome) = writer.ledger.settle(&view, &unknown.into_iter().collect()) {
                self.tally.count(outcome);
            }
        }
        let ledgers = || self.writers.iter().map(|writer| &writer.ledger);
        for identity in view.instances.keys() {
            let known = ledgers().any(|ledger| ledger.states.contains_key(identity));
            assert!(known, "{identity:?} is there and was deregistered, or never registered");
        }
        let changes: u64 = ledgers().map(|ledger| ledger.changes).sum();
        assert_eq!(changes, revision, "every change took a revision, and nothing else did");

        for watcher in &mut self.watchers {
            watcher.resume(channel.clone(), &view).await;
        }
        let watched = self.watchers.iter().take(NAMESPACES.len()).map(|watcher| watcher.changes);
        assert_eq!(watched.sum::<u64>(), revision, "every change was told once");
        self.tally.revision = revision;
        self.tally.taken = self.writers.iter().map(|writer| writer.taken).sum();
        self.tally.refused = self.writers.iter().map(|writer| writer.refused).sum();
    }
}
