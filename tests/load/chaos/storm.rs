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
    /// So they do, and the registry stops for a while.
    RegistryStops,
    /// So they do, and the registry is killed and begun anew.
    RegistryDies,
    /// Nothing else happens: no call may fail.
    RegistryStopsAlone,
}

/// A fault.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    Kill(usize),
    /// Another process takes the place of one that was killed.
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
pub(crate) struct Storm {
    kind: Kind,
    pub(crate) acts: Vec<(Duration, Act)>,
}

/// In one round. Those of two rounds in a row are too few for the protection against mass expiry.
const LOSSES_MAX: usize = 4;
/// Faults begin within this time.
const SPAN_MS: u64 = 2_000;

impl Storm {
    pub(crate) fn random(random: &mut fastrand::Rng, round: usize, setting: &Setting) -> Self {
        let kind = match KINDS.get(round) {
            Some(kind) => *kind,
            None => KINDS[random.usize(..KINDS.len())],
        };
        let mut storm = Self { kind, acts: Vec::new() };
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
                0 | 1 => (Act::Kill(replica), None),
                2 => (Act::Kill(replica), Some((random.u64(..1_000), Act::Replace(replica)))),
                3 => {
                    let long = ttl_ms + random.u64(500..1_500);
                    (Act::Stop(replica), Some((long, Act::Continue(replica))))
                }
                _ => {
                    let short = random.u64(50..ttl_ms / 2);
                    (Act::Stop(replica), Some((short, Act::Continue(replica))))
                }
            };
            storm.add(at, act);
            if let Some((later, act)) = after {
                storm.add(at + later, act);
            }
        }
        let at = random.u64(..SPAN_MS);
        match kind {
            Kind::Replicas => {}
            Kind::RegistryStops | Kind::RegistryStopsAlone => {
                storm.add(at, Act::StopRegistry);
                storm.add(at + random.u64(100..2 * ttl_ms), Act::ContinueRegistry);
            }
            Kind::RegistryDies => {
                storm.add(at, Act::KillRegistry);
                storm.add(at + random.u64(..1_500), Act::StartRegistry);
            }
        }
        storm.acts.sort_by_key(|(at, _)| *at);
        storm
    }

    /// The registry stops for a while; nothing else happens.
    pub(crate) fn standstill(time: Duration) -> Self {
        let acts = vec![(Duration::ZERO, Act::StopRegistry), (time, Act::ContinueRegistry)];
        Self { kind: Kind::RegistryStopsAlone, acts }
    }

    fn add(&mut self, at_ms: u64, act: Act) {
        self.acts.push((Duration::from_millis(at_ms), act));
    }
}

impl fmt::Display for Storm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}:", self.kind)?;
        for (at, act) in &self.acts {
            write!(formatter, " {} ms {act:?};", at.as_millis())?;
        }
        Ok(())
    }
}
