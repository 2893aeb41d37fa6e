//! The decisions on leases, by the services that they belong to. A session remembers those of an
//! epoch.

use std::sync::Arc;

use parking_lot::MutexGuard;
use waypost_auth::policy::{Action, Scope};
use waypost_core::failpoint::planted;

use super::session::{Judgement, LeaseMemory};
use crate::{model::ServiceKey, registry::ServiceNumber};

/// The services whose leases a session remembers its decision for. Beyond, it decides again.
const DECIDED_MAX: usize = 4_096;

/// The decisions on leases by the services that they belong to. Must not live across an `await`.
#[derive(Debug)]
pub(crate) struct LeaseRights<'a>(pub(super) LeaseRange<'a>);

#[derive(Debug)]
pub(super) enum LeaseRange<'a> {
    All,
    /// The identity is no longer valid.
    Nothing,
    /// Those of some services.
    Some {
        judgement: Arc<Judgement>,
        memory: MutexGuard<'a, LeaseMemory>,
    },
}

impl LeaseRights<'_> {
    /// Returns whether the caller may renew the leases of the service with this number, whose name
    /// `key` returns.
    #[inline]
    pub(crate) fn allow(
        &mut self,
        service: ServiceNumber,
        key: impl FnOnce(ServiceNumber) -> Option<Arc<ServiceKey>>,
    ) -> bool {
        let (judgement, memory) = match &mut self.0 {
            LeaseRange::All => return true,
            LeaseRange::Some { .. } if planted("lease-of-anyone") => return true,
            LeaseRange::Nothing => return false,
            LeaseRange::Some { judgement, memory } => (judgement, memory),
        };
        if let Some((latest, allowed)) = memory.latest
            && latest == service
        {
            return allowed;
        }
        let allowed = match memory.decided.get(&service) {
            Some(allowed) => *allowed,
            None => {
                let Some(key) = key(service) else { return false };
                let scope = Scope::Service(&key);
                let allowed = judgement
                    .outcome
                    .as_ref()
                    .is_ok_and(|(_, grants)| grants.decide(Action::Register, scope).is_ok());
                if memory.decided.len() >= DECIDED_MAX {
                    memory.decided.clear();
                }
                memory.decided.insert(service, allowed);
                allowed
            }
        };
        memory.latest = Some((service, allowed));
        allowed
    }
}
