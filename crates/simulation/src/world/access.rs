//! Policies of the registry, and those that act on and against them.

use waypost_client::proto::Cursor;

use super::World;
use crate::{
    access::{AccessRules, INTRUDER_TOKEN, LEASED, PROBES, service_token},
    network::{REGISTRY, socket::Process},
    oracle::History,
    software::intruder::Loot,
};

impl World {
    /// A process with a token, where there is a policy.
    pub(super) fn process(&self, token: &str) -> Process {
        Process::with_token(self.plan.rules.as_ref().map(|_| token.to_owned()))
    }

    /// The rules in force, where there is a policy.
    pub fn rules(&self) -> Option<&AccessRules> {
        self.plan.rules.as_ref()
    }

    /// Puts other rules into force, unless the registry can't take them now.
    pub fn replace_rules(&mut self, rules: AccessRules) {
        if !self.machines[REGISTRY].runs(self.now) || self.is_gated() {
            return;
        }
        let Some(policies) = &self.policies else { return };
        if policies.try_send(rules.policy()).is_ok() {
            self.faults.note(self.now, "policy replaced", &rules.summary());
            self.oracle.rules_begin(rules.clone());
            self.plan.rules = Some(rules);
        }
    }

    /// Starts a probe of a service whose rights change.
    pub fn probe_right(&mut self) {
        let service = LEASED[self.random.usize(..LEASED.len())];
        let token = service_token(&(PROBES.to_owned(), service.to_owned()));
        self.probe_as(&token, |probe| probe.lose_right(service));
    }

    /// Lets a hostile client try what it can.
    pub fn intrude(&mut self) {
        let Some(rules) = &self.plan.rules else { return };
        let services: Vec<_> = rules.services().cloned().collect();
        let Some(visible) = services.first().cloned() else { return };
        let revision = self.oracle.present().map_or(0, History::revision);
        let cursor = Cursor {
            history_id: self.oracle.present().map(|one| one.id.clone()).unwrap_or_default(),
            revision: self.random.u64(..=revision),
        };
        let leases = self.oracle.leases.iter().cloned().collect();
        let loot = Loot { leases, visible, services, cursor };
        self.probe_as(INTRUDER_TOKEN, |probe| probe.intrude(loot));
    }
}
