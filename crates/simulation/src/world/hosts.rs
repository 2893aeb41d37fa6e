//! Faults of hosts and links: kills, pauses, power, loss and cuts.

use super::World;
use crate::{
    network::{Link, REGISTRY},
    oracle::Termination,
    time::Millis,
};

impl World {
    /// Ends it with `kill -9`.
    pub fn kill_registry(&mut self) {
        self.faults.note(self.now, "registry killed", "");
        self.switch_off(REGISTRY);
    }

    pub(super) fn switch_off(&mut self, host: usize) {
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
                self.oracle.membership.ended(
                    &replica.identity,
                    number,
                    Termination::PowerLost,
                    now,
                );
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
}
