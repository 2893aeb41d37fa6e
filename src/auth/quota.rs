//! The limits of principals: their writes in time, their open watches and connections.
//!
//! Pure: the caller passes the time in.
//!
//! Writes are counted by the generic cell rate algorithm (ITU-T I.371), which is one number.
//! `governor` has it with limits that stay and a clock of its own; here another policy brings other
//! limits, and what was used stays used.
//!
//! Invariant: what a principal used is forgotten only when it would have no effect.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use waypost_auth::policy::{Principal, PrincipalLimits};

use crate::model::Tick;

/// The principals that are told apart. Further ones share one use.
const PRINCIPALS_MAX: usize = 100_000;

/// The number of principals from which on unused ones are looked for.
const SWEEP_MIN: usize = 1_024;

/// The shortest time between two looks for unused ones.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The delay before another attempt to open what there is too much of.
const OPEN_RETRY: Duration = Duration::from_secs(1);

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const NANOS_PER_TICK: u64 = 1_000_000;

/// The limit that a principal is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrincipalLimit {
    /// Writes.
    Writes {
        /// In a second, in the long run.
        per_second: u32,
        /// At once.
        burst: u32,
    },
    /// Open watches.
    Watches(u32),
    /// Open connections.
    Connections(u32),
}

/// A limit that was reached, and the time after which there is room again, or may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OverLimit {
    pub(super) limit: PrincipalLimit,
    pub(super) retry: Duration,
}

/// What one principal may use, by its policy, and has used.
#[derive(Debug, Clone)]
pub(super) struct PrincipalQuota {
    usage: Arc<PrincipalUsage>,
    limits: PrincipalLimits,
}

/// What one principal uses.
#[derive(Debug, Default)]
struct PrincipalUsage {
    /// The time at which the rate allows all writes so far, in nanoseconds of the clock.
    writes_allowed_at: AtomicU64,
    watches: AtomicU32,
    connections: AtomicU32,
}

/// An open watch of a principal, until it is dropped.
#[derive(Debug)]
pub(crate) struct WatchSlot(Arc<PrincipalUsage>);

/// An open connection of a principal, until it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot(Arc<PrincipalUsage>);

/// What all principals use.
#[derive(Debug, Default)]
pub(super) struct Quotas(Mutex<QuotaTable>);

#[derive(Debug, Default)]
struct QuotaTable {
    by_principal: HashMap<Principal, Arc<PrincipalUsage>>,
    /// Shared by the principals beyond the greatest number.
    others: Arc<PrincipalUsage>,
    /// The number of principals after the last look for unused ones.
    swept_to: usize,
    next_sweep: Tick,
}

impl PrincipalLimit {
    /// Returns the reason as a machine reads it, in upper case.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Writes { .. } => "TOO_MANY_WRITES",
            Self::Watches(_) => "TOO_MANY_WATCHES",
            Self::Connections(_) => "TOO_MANY_CONNECTIONS",
        }
    }
}

impl fmt::Display for PrincipalLimit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Writes { per_second, burst } => {
                write!(formatter, "{per_second} writes a second, {burst} at once")
            }
            Self::Watches(max) => write!(formatter, "{max} open watches"),
            Self::Connections(max) => write!(formatter, "{max} open connections"),
        }
    }
}

impl PrincipalQuota {
    /// Takes one write at the time `now`.
    pub(super) fn write(&self, now: Tick) -> Result<(), OverLimit> {
        let (per_second, burst) = (self.limits.writes_per_second, self.limits.writes_burst);
        let retry = |wait: u64| OverLimit {
            limit: PrincipalLimit::Writes { per_second, burst },
            retry: Duration::from_millis(wait.div_ceil(NANOS_PER_TICK)),
        };
        self.usage.write(now, per_second, burst).map_err(retry)
    }

    /// Opens a watch.
    pub(super) fn watch(&self) -> Result<WatchSlot, OverLimit> {
        let max = self.limits.watches;
        match take(&self.usage.watches, max) {
            true => Ok(WatchSlot(Arc::clone(&self.usage))),
            false => Err(OverLimit { limit: PrincipalLimit::Watches(max), retry: OPEN_RETRY }),
        }
    }

    /// Opens a connection.
    pub(super) fn connection(&self) -> Result<ConnectionSlot, OverLimit> {
        let max = self.limits.connections;
        match take(&self.usage.connections, max) {
            true => Ok(ConnectionSlot(Arc::clone(&self.usage))),
            false => Err(OverLimit { limit: PrincipalLimit::Connections(max), retry: OPEN_RETRY }),
        }
    }
}

impl PrincipalUsage {
    /// Takes one write. Otherwise returns the nanoseconds until there is room for one.
    fn write(&self, now: Tick, per_second: u32, burst: u32) -> Result<(), u64> {
        let per_second = u64::from(per_second.max(1));
        let interval = NANOS_PER_SECOND / per_second;
        // The clock counts milliseconds: a smaller burst would be a smaller rate.
        let burst = u64::from(burst.max(1)).max(per_second.div_ceil(1_000));
        let now = now.0.saturating_mul(NANOS_PER_TICK);
        let latest = now.saturating_add(burst.saturating_mul(interval));
        let write = |allowed_at: u64| {
            let next = allowed_at.max(now).saturating_add(interval);
            (next <= latest).then_some(next)
        };
        let (set, read) = (Ordering::Relaxed, Ordering::Relaxed);
        let taken = self.writes_allowed_at.fetch_update(set, read, write);
        taken.map(drop).map_err(|allowed_at| allowed_at.saturating_add(interval) - latest)
    }

    /// Returns whether it makes no difference to forget it.
    fn is_unused(self: &Arc<Self>, now: Tick) -> bool {
        let allowed_at = self.writes_allowed_at.load(Ordering::Relaxed);
        Arc::strong_count(self) == 1 && allowed_at <= now.0.saturating_mul(NANOS_PER_TICK)
    }
}

/// Counts one more, up to a greatest number.
fn take(count: &AtomicU32, max: u32) -> bool {
    let more = |count: u32| (count < max).then_some(count + 1);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}

impl Drop for WatchSlot {
    fn drop(&mut self) {
        self.0.watches.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Quotas {
    /// Returns the quota of a principal with these limits.
    pub(super) fn of(
        &self,
        principal: &Principal,
        limits: PrincipalLimits,
        now: Tick,
    ) -> PrincipalQuota {
        PrincipalQuota { usage: self.0.lock().usage(principal, now), limits }
    }
}

impl QuotaTable {
    fn usage(&mut self, principal: &Principal, now: Tick) -> Arc<PrincipalUsage> {
        if let Some(usage) = self.by_principal.get(principal) {
            return Arc::clone(usage);
        }
        self.sweep(now);
        if self.by_principal.len() >= PRINCIPALS_MAX {
            return Arc::clone(&self.others);
        }
        let usage = Arc::<PrincipalUsage>::default();
        self.by_principal.insert(principal.clone(), Arc::clone(&usage));
        usage
    }

    /// Forgets the unused ones, each time when their number has doubled.
    fn sweep(&mut self, now: Tick) {
        let enough = (2 * self.swept_to).clamp(SWEEP_MIN, PRINCIPALS_MAX);
        if self.by_principal.len() < enough || now < self.next_sweep {
            return;
        }
        self.by_principal.retain(|_, usage| !usage.is_unused(now));
        self.swept_to = self.by_principal.len();
        self.next_sweep = now.after(SWEEP_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(number: usize) -> Principal {
        Principal::parse(&format!("dns/caller-{number}.example")).unwrap()
    }

    fn quota(quotas: &Quotas, number: usize, limits: PrincipalLimits) -> PrincipalQuota {
        quotas.of(&principal(number), limits, Tick(0))
    }

    fn writes(per_second: u32, burst: u32) -> PrincipalLimits {
        PrincipalLimits { writes_per_second: per_second, writes_burst: burst, ..Default::default() }
    }

    /// The number of writes that are taken at a time.
    fn taken(quota: &PrincipalQuota, tick: u64) -> usize {
        std::iter::repeat_with(|| quota.write(Tick(tick))).take_while(Result::is_ok).count()
    }

    #[test]
    fn writes_have_a_burst_and_then_a_rate() {
        let quota = quota(&Quotas::default(), 1, writes(10, 5));
        assert_eq!(taken(&quota, 1_000), 5);
        let over = quota.write(Tick(1_000)).unwrap_err();
        assert_eq!(over.retry, Duration::from_millis(100));
        assert_eq!(over.limit.to_string(), "10 writes a second, 5 at once");
        assert_eq!(quota.write(Tick(1_040)).unwrap_err().retry, Duration::from_millis(60));
        assert_eq!(taken(&quota, 1_099), 0);
        assert_eq!(taken(&quota, 1_100), 1);
        assert_eq!(taken(&quota, 1_300), 2);
        // After a rest there is the burst again, and not more.
        assert_eq!(taken(&quota, 60_000), 5);
    }

    #[test]
    fn rate_is_exact_in_the_long_run() {
        for (per_second, burst) in [(1, 1), (7, 3), (1_000, 10_000), (5_000, 1), (300_000, 10)] {
            let quota = quota(&Quotas::default(), 1, writes(per_second, burst));
            let all: usize = (0..10_000).map(|tick| taken(&quota, tick)).sum();
            let expected = 10 * per_second as usize + burst as usize;
            // At once are at least those of a millisecond.
            let slack = per_second as usize / 500 + 1;
            assert!(all.abs_diff(expected) <= slack, "{all}, not {expected}");
        }
    }

    #[test]
    fn other_limits_keep_what_was_used() {
        let quotas = Quotas::default();
        let first = quota(&quotas, 1, writes(10, 100));
        assert_eq!(taken(&first, 0), 100);
        assert_eq!(taken(&quota(&quotas, 1, writes(10, 100)), 0), 0);
        let larger = quota(&quotas, 1, PrincipalLimits { watches: 2, ..writes(10, 150) });
        assert_eq!(taken(&larger, 0), 50);
        let (_one, two) = (larger.watch().unwrap(), larger.watch().unwrap());
        let smaller = quota(&quotas, 1, PrincipalLimits { watches: 1, ..writes(10, 1) });
        assert_eq!(smaller.watch().unwrap_err().limit, PrincipalLimit::Watches(1));
        drop(two);
        assert!(smaller.watch().is_err() && larger.watch().is_ok());
        // Others have their own.
        assert_eq!(taken(&quota(&quotas, 2, writes(10, 100)), 0), 100);
    }

    #[test]
    fn connections_are_counted_until_they_are_dropped() {
        let limits = PrincipalLimits { connections: 2, ..PrincipalLimits::default() };
        let quota = quota(&Quotas::default(), 1, limits);
        let open: Vec<_> = (0..2).map(|_| quota.connection().unwrap()).collect();
        let over = quota.connection().unwrap_err();
        assert_eq!(over.limit.to_string(), "2 open connections");
        drop(open);
        assert!(quota.connection().is_ok());
    }

    #[test]
    fn unused_principals_are_forgotten_and_used_ones_never() {
        let quotas = Quotas::default();
        let limits = writes(1, 10);
        let writer = quota(&quotas, 0, limits);
        assert_eq!(taken(&writer, 0), 10);
        drop(writer);
        let open = quota(&quotas, 1, limits);
        for number in 2..3 * SWEEP_MIN {
            let quota = quotas.of(&principal(number), limits, Tick(number as u64));
            assert!(quota.watch().is_ok());
        }
        let known = quotas.0.lock().by_principal.len();
        assert!(known <= 2 * SWEEP_MIN, "{known}");
        // What was written has an effect for 10 s.
        assert_eq!(taken(&quotas.of(&principal(0), limits, Tick(3_000)), 3_000), 3);
        let _watch = open.watch().unwrap();
        let again = quotas.of(&principal(1), PrincipalLimits { watches: 1, ..limits }, Tick(9_000));
        assert!(again.watch().is_err());
    }

    #[test]
    fn principals_beyond_their_number_share_one_quota() {
        let quotas = Quotas::default();
        let limits = PrincipalLimits { watches: 1, ..PrincipalLimits::default() };
        let apart: Vec<_> = (0..PRINCIPALS_MAX).map(|n| quota(&quotas, n, limits)).collect();
        let watches: Vec<_> = apart.iter().map(|quota| quota.watch().unwrap()).collect();
        let further = quota(&quotas, PRINCIPALS_MAX, limits).watch().unwrap();
        assert!(quota(&quotas, PRINCIPALS_MAX + 1, limits).watch().is_err());
        drop(further);
        assert!(quota(&quotas, PRINCIPALS_MAX + 1, limits).watch().is_ok());
        // Where others have left, there is room again.
        drop((apart, watches));
        let later = quotas.of(&principal(PRINCIPALS_MAX + 1), limits, Tick(5_000));
        assert!(later.watch().is_ok());
        assert_eq!(quotas.0.lock().by_principal.len(), 1);
    }
}
