//! A round of faults with their targets and times, made from a seed alone.

use std::{fmt, time::Duration};

use crate::chaos::world::Setting;

/// The kinds of rounds. The first rounds of a run are one of each.
pub(crate) const KINDS: [Kind; 4] =
    [Kind::Replicas, Kind::RegistryStops, Kind::RegistryDies, Kind::RegistryStopsAlone];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Replicas die and stop.
    Replicas,
    /// The same, and the registry is stopped for a while.
    RegistryStops,
    /// The same, and the registry is killed and restarted.
    RegistryDies,
    /// Nothing else happens: no call may fail.
    RegistryStopsAlone,
}

/// A fault.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Action {
    Kill(usize),
    /// Another process replaces one that was killed.
    Replace(usize),
    Stop(usize),
    Continue(usize),
    StopRegistry,
    ContinueRegistry,
    KillRegistry,
    StartRegistry,
}

/// Acts in the order of their times.
#[derive(Debug)]
pub(crate) struct FaultPlan {
    kind: Kind,
    pub(crate) acts: Vec<(Duration, Action)>,
}

/// In one round. Those of two rounds in a row are too few for the protection against mass expiry.
const LOSSES_MAX: usize = 4;
/// Faults start within this time.
const SPAN_MS: u64 = 2_000;

impl FaultPlan {
    pub(crate) fn random(random: &mut fastrand::Rng, round: usize, setting: &Setting) -> Self {
        let kind = match KINDS.get(round) {
            Some(kind) => *kind,
            None => KINDS[random.usize(..KINDS.len())],
        };
        let mut plan = Self { kind, acts: Vec::new() };
        let losses = match kind {
            Kind::Replicas => LOSSES_MAX,
            Kind::RegistryStops | Kind::RegistryDies => random.usize(..LOSSES_MAX),
            Kind::RegistryStopsAlone => 0,
        };
        let ttl_ms = u64::try_from(setting.ttl.as_millis()).expect("short");
        let mut replicas: Vec<usize> = (0..setting.replicas).collect();
        random.shuffle(&mut replicas);
        for &replica in replicas.iter().take(losses) {
            let at = random.u64(..SPAN_MS);
            let (act, after) = match random.u8(..5) {
                0 | 1 => (Action::Kill(replica), None),
                2 => (Action::Kill(replica), Some((random.u64(..1_000), Action::Replace(replica)))),
                3 => {
                    let long = ttl_ms + random.u64(500..1_500);
                    (Action::Stop(replica), Some((long, Action::Continue(replica))))
                }
                _ => {
                    let short = random.u64(50..ttl_ms / 2);
                    (Action::Stop(replica), Some((short, Action::Continue(replica))))
                }
            };
            plan.add(at, act);
            if let Some((later, act)) = after {
                plan.add(at + later, act);
            }
        }
        let at = random.u64(..SPAN_MS);
        match kind {
            Kind::Replicas => {}
            Kind::RegistryStops | Kind::RegistryStopsAlone => {
                plan.add(at, Action::StopRegistry);
                plan.add(at + random.u64(100..2 * ttl_ms), Action::ContinueRegistry);
            }
            Kind::RegistryDies => {
                plan.add(at, Action::KillRegistry);
                plan.add(at + random.u64(..1_500), Action::StartRegistry);
            }
        }
        plan.acts.sort_by_key(|(at, _)| *at);
        plan
    }

    /// The registry stops for a while; nothing else happens.
    pub(crate) fn standstill(time: Duration) -> Self {
        let acts = vec![(Duration::ZERO, Action::StopRegistry), (time, Action::ContinueRegistry)];
        Self { kind: Kind::RegistryStopsAlone, acts }
    }

    fn add(&mut self, at_ms: u64, act: Action) {
        self.acts.push((Duration::from_millis(at_ms), act));
    }
}

impl fmt::Display for FaultPlan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}:", self.kind)?;
        for (at, act) in &self.acts {
            write!(formatter, " {} ms {act:?};", at.as_millis())?;
        }
        Ok(())
    }
}
