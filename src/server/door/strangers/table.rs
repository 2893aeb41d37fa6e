//! The strangers by age and origin. Pure.
//!
//! At the limit, the oldest one of the origin with the most of them goes. An attacker with one
//! address, or with some, thus takes the places of no other; honest callers are strangers for
//! milliseconds, and so never the oldest of theirs for long.
//!
//! Invariant: never more than the limit.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr},
};

/// The network that counts as one caller: an IPv4 address, or a /64 of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Origin {
    Unknown,
    V4(Ipv4Addr),
    V6Prefix([u16; 4]),
}

impl Origin {
    pub(super) fn of(address: Option<IpAddr>) -> Self {
        match address.map(|address| address.to_canonical()) {
            None => Self::Unknown,
            Some(IpAddr::V4(address)) => Self::V4(address),
            Some(IpAddr::V6(address)) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6Prefix([a, b, c, d])
            }
        }
    }
}

/// The strangers, each with a value.
#[derive(Debug)]
pub(super) struct Table<V> {
    max: usize,
    next_id: u64,
    /// By id; a later one has a greater id.
    strangers: HashMap<u64, (Origin, V)>,
    by_origin: HashMap<Origin, BTreeSet<u64>>,
    /// The origins by their numbers of strangers.
    by_count: BTreeMap<usize, BTreeSet<Origin>>,
}

/// The outcome of an arrival.
#[derive(Debug)]
pub(super) struct StrangerArrival<V> {
    pub(super) admitted: V,
    /// The one that made room.
    pub(super) evicted: Option<V>,
}

impl<V: Clone> Table<V> {
    /// A table of at most `max` strangers, and one at least.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            next_id: 0,
            strangers: HashMap::new(),
            by_origin: HashMap::new(),
            by_count: BTreeMap::new(),
        }
    }

    /// Adds a stranger, whose value is made of its id.
    pub(super) fn admit(
        &mut self,
        origin: Origin,
        value: impl FnOnce(u64) -> V,
    ) -> StrangerArrival<V> {
        let evicted = if self.strangers.len() >= self.max { self.evict() } else { None };
        let id = self.next_id;
        self.next_id += 1;
        let admitted = value(id);
        self.strangers.insert(id, (origin, admitted.clone()));
        let ids = self.by_origin.entry(origin).or_default();
        let before = ids.len();
        ids.insert(id);
        self.recount(origin, before, before + 1);
        StrangerArrival { admitted, evicted }
    }

    /// Removes a stranger, if it is one still.
    pub(super) fn remove(&mut self, id: u64) -> Option<V> {
        let (origin, value) = self.strangers.remove(&id)?;
        let ids = self.by_origin.get_mut(&origin)?;
        let before = ids.len();
        ids.remove(&id);
        if ids.is_empty() {
            self.by_origin.remove(&origin);
        }
        self.recount(origin, before, before - 1);
        Some(value)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.strangers.len()
    }

    /// Removes the oldest one of the origin with the most.
    fn evict(&mut self) -> Option<V> {
        let (_, origins) = self.by_count.last_key_value()?;
        let oldest = *self.by_origin.get(origins.first()?)?.first()?;
        self.remove(oldest)
    }

    fn recount(&mut self, origin: Origin, before: usize, after: usize) {
        if let Some(origins) = self.by_count.get_mut(&before) {
            origins.remove(&origin);
            if origins.is_empty() {
                self.by_count.remove(&before);
            }
        }
        if after > 0 {
            self.by_count.entry(after).or_default().insert(origin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(address: &str) -> Origin {
        Origin::of(Some(address.parse().unwrap()))
    }

    fn admit(table: &mut Table<u64>, address: &str) -> (u64, Option<u64>) {
        let StrangerArrival { admitted, evicted } = table.admit(origin(address), |id| id);
        (admitted, evicted)
    }

    #[test]
    fn origin_is_an_ipv4_address_or_a_64_of_ipv6() {
        assert_eq!(origin("::ffff:10.0.0.1"), origin("10.0.0.1"));
        assert_ne!(origin("10.0.0.1"), origin("10.0.0.2"));
        assert_eq!(origin("2001:db8:1:2::1"), origin("2001:db8:1:2:ffff::2"));
        assert_ne!(origin("2001:db8:1:2::1"), origin("2001:db8:1:3::1"));
        assert_eq!(Origin::of(None), Origin::Unknown);
    }

    #[test]
    fn oldest_of_the_largest_origin_makes_room() {
        let mut table = Table::new(4);
        assert_eq!(admit(&mut table, "10.0.0.1"), (0, None));
        for expected in 1..4 {
            assert_eq!(admit(&mut table, "10.0.0.9"), (expected, None));
        }
        assert_eq!(admit(&mut table, "10.0.0.9"), (4, Some(1)), "its own oldest");
        assert_eq!(admit(&mut table, "10.0.0.2"), (5, Some(2)), "not the older of another");
        table.remove(3);
        assert_eq!(table.remove(3), None);
        assert_eq!(admit(&mut table, "10.0.0.2"), (6, None));
        assert_eq!(admit(&mut table, "10.0.0.3"), (7, Some(5)));
        assert_eq!(table.len(), 4);
    }

    #[test]
    fn random_strangers_stay_within_the_limit_and_evict_only_the_largest() {
        let seed = std::env::var("WAYPOST_SEED").ok().and_then(|seed| seed.parse().ok());
        let mut random = fastrand::Rng::with_seed(seed.unwrap_or(3));
        println!("WAYPOST_SEED={}", random.get_seed());
        let mut table = Table::new(32);
        let mut model: Vec<(u64, u8)> = Vec::new();
        for _ in 0..20_000 {
            if random.u8(..3) == 0 && !model.is_empty() {
                let (id, _) = model.remove(random.usize(..model.len()));
                assert_eq!(table.remove(id), Some(id));
                continue;
            }
            let host = random.u8(..6);
            let (id, evicted) = admit(&mut table, &format!("10.0.0.{host}"));
            assert_eq!(evicted.is_some(), model.len() == 32);
            if let Some(evicted) = evicted {
                let of = |host| model.iter().filter(|(_, other)| *other == host).count();
                let (_, largest) = model.iter().find(|(id, _)| *id == evicted).unwrap();
                assert!(model.iter().all(|(_, other)| of(*other) <= of(*largest)));
                let oldest = model.iter().find(|(_, other)| other == largest).unwrap();
                assert_eq!(oldest.0, evicted);
                model.retain(|(id, _)| *id != evicted);
            }
            model.push((id, host));
            assert_eq!(table.len(), model.len());
        }
        for (id, _) in model {
            table.remove(id);
        }
        assert!(table.by_origin.is_empty() && table.by_count.is_empty());
    }
}
