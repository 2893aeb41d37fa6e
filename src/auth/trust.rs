//! One snapshot of everything that callers are judged by, swapped as a whole. Each version has a
//! number, its epoch; a session that meets a new epoch is judged anew.
//!
//! Invariant: no decision mixes two epochs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use waypost_auth::policy::Policy;

use super::{quota::Quotas, tls::TlsContext};
use crate::model::WallTime;

/// One version of what callers are judged by.
#[derive(Debug)]
pub struct Trust {
    /// The number of the version; the first is 1.
    pub epoch: u64,
    /// The time since which it is in force.
    pub since: WallTime,
    /// The policy.
    pub policy: Arc<Policy>,
    /// The credentials; `None`: the port speaks clear text.
    pub(crate) tls: Option<Arc<TlsContext>>,
}

/// The version in force.
#[derive(Debug)]
pub struct TrustCell {
    current: ArcSwap<Trust>,
    /// The epoch of `current`, or the one before it.
    epoch: AtomicU64,
    epochs: watch::Sender<u64>,
    /// What principals use, through all versions.
    quotas: Quotas,
}

impl Trust {
    /// Returns the end of the server's own certificate; `None` if the port speaks clear text.
    pub(crate) fn certificate_expires(&self) -> Option<SystemTime> {
        self.tls.as_ref().map(|tls| tls.lifetime().not_after)
    }
}

impl TrustCell {
    /// Puts a first version into force.
    pub(crate) fn new(policy: Policy, tls: Option<TlsContext>, since: WallTime) -> Self {
        let (policy, tls) = (Arc::new(policy), tls.map(Arc::new));
        let trust = Trust { epoch: 1, since, policy, tls };
        Self {
            current: ArcSwap::from_pointee(trust),
            epoch: AtomicU64::new(1),
            epochs: watch::Sender::new(1),
            quotas: Quotas::default(),
        }
    }

    /// Puts a first policy into force for a port that speaks clear text, which has no identity
    /// folder: that of a simulation. No handler has a way to a server's cell.
    pub fn of_clear_text(policy: Policy, since: WallTime) -> Self {
        Self::new(policy, None, since)
    }

    /// Returns the version in force.
    pub fn current(&self) -> Arc<Trust> {
        self.current.load_full()
    }

    /// Returns the epoch of the version in force.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Puts another version into force. Only one task may do so.
    pub(crate) fn replace(&self, policy: Policy, tls: Option<TlsContext>, since: WallTime) {
        let (policy, tls) = (Arc::new(policy), tls.map(Arc::new));
        let epoch = self.epoch() + 1;
        self.current.store(Arc::new(Trust { epoch, since, policy, tls }));
        self.epoch.store(epoch, Ordering::Release);
        self.epochs.send_replace(epoch);
    }

    /// Returns what principals use.
    pub(super) fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// Watches the epoch.
    pub fn epochs(&self) -> watch::Receiver<u64> {
        self.epochs.subscribe()
    }
}
