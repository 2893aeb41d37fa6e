//! Random changes of the policy, and attacks on it.

use std::collections::BTreeSet;

use fastrand::Rng;

use super::{NAMESPACES, NODES, RandomRun, SERVICES};
use crate::access::{AccessRules, VisibleServices, reader_token, service_token};

/// The number of rules that may be restored.
const FORMER_MAX: usize = 8;

/// The policy of a random run.
pub(super) struct PolicyRun {
    /// Apart from that of the run, which is the same without a policy.
    random: Rng,
    former: Vec<AccessRules>,
}

impl PolicyRun {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: Rng::with_seed(seed ^ 0x5ec2_e75e_c2e7), former: Vec::new() }
    }

    /// The rules at the start: some readers see parts.
    pub(super) fn rules(&mut self) -> AccessRules {
        let first = crate::world::FIRST_NODE;
        let mut rules = AccessRules::new(&NAMESPACES, &SERVICES, first..first + NODES);
        for _ in 0..NODES {
            self.change_sight(&mut rules);
        }
        rules
    }

    /// Other rules, one step from these or former ones.
    fn change(&mut self, rules: &AccessRules) -> AccessRules {
        let mut changed = rules.clone();
        let services: Vec<_> = rules.services().cloned().collect();
        let service = services[self.random.usize(..services.len())].clone();
        match self.random.u8(..100) {
            0..30 => self.change_sight(&mut changed),
            30..55 => toggle(&mut changed.barred, service),
            55..70 => toggle(&mut changed.revoked, service_token(&service)),
            70..78 => {
                let node = crate::world::FIRST_NODE + self.random.usize(..NODES);
                toggle(&mut changed.revoked, reader_token(node));
            }
            78..90 => changed.restore(),
            _ if self.former.is_empty() => changed.restore(),
            _ => changed = self.former[self.random.usize(..self.former.len())].clone(),
        }
        self.former.push(rules.clone());
        if self.former.len() > FORMER_MAX {
            self.former.remove(0);
        }
        changed
    }

    fn change_sight(&mut self, rules: &mut AccessRules) {
        let count = rules.visible.len();
        let nth = self.random.usize(..count);
        let listed = |services: &[&str]| {
            let services: BTreeSet<_> = services.iter().map(|one| (*one).to_owned()).collect();
            VisibleServices::Listed(services)
        };
        let visible = match self.random.u8(..8) {
            0 => VisibleServices::Nothing,
            1 | 2 => listed(&SERVICES[..1]),
            3 | 4 => listed(&SERVICES[1..]),
            5 => listed(&SERVICES),
            _ => VisibleServices::Whole,
        };
        if let Some(entry) = rules.visible.values_mut().nth(nth) {
            *entry = visible;
        }
    }
}

fn toggle<T: Ord>(set: &mut BTreeSet<T>, item: T) {
    if !set.remove(&item) {
        set.insert(item);
    }
}

impl RandomRun {
    /// Does what changes policies, and what attacks them.
    pub(super) fn act_on_policy(&mut self) {
        let (Some(run), Some(rules)) = (&mut self.policy, self.world.rules()) else { return };
        match run.random.u8(..100) {
            0..18 => {
                let rules = run.change(rules);
                self.world.replace_rules(rules);
            }
            18..30 => self.world.intrude(),
            30..38 => self.world.probe_right(),
            _ => {}
        }
    }

    /// Gives every service its rights, and lets the rest of the policy be.
    pub(super) fn restore_rights(&mut self) {
        if let Some(rules) = self.world.rules() {
            let mut rules = rules.clone();
            rules.restore();
            self.world.replace_rules(rules);
        }
    }

    /// Attacks in peace, when nothing else happens.
    pub(super) fn act_in_peace(&mut self) {
        let Some(run) = &mut self.policy else { return };
        match run.random.u8(..3) {
            0 => self.world.probe_right(),
            _ => self.world.intrude(),
        }
    }
}
