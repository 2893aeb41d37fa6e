//! Conversations with the registry during a run, and the state as the recorder saw it.

use std::future::Future;

use waypost_client::proto::Status;

use super::{RECORDER, World};
use crate::{
    access::RECORDER_TOKEN, journal::Identity, network::REGISTRY, oracle::History,
    software::probe::Probe,
};

impl World {
    fn probe<F>(&mut self, talk: impl FnOnce(Probe) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.probe_as(RECORDER_TOKEN, talk);
    }

    /// Starts a conversation with the registry, where it is there for all.
    pub(super) fn probe_as<F>(&mut self, token: &str, talk: impl FnOnce(Probe) -> F)
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
        let (number, process) = (self.probes_ever, self.process(token));
        let probe = Probe { number, process, clock, journal, random };
        self.system(RECORDER).0.spawn(talk(probe));
    }

    /// Renews leases that must be unknown.
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

    /// Checks how many instances of a namespace are held.
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
        self.oracle.membership.evicted(identity, now);
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
}
