//! A content's parts, read in place.

use std::num::NonZeroU16;

use super::{metadata::entries, packed::PackedReader, status::Status};

/// The parts of a [`Content`], as they lie there.
#[derive(Debug, Clone)]
pub struct ContentView<'a> {
    /// Whether it takes traffic.
    pub status: Status,
    /// The main port.
    pub port: NonZeroU16,
    /// Its share of traffic relative to the other replicas.
    pub weight: u32,
    /// Where it is reached.
    pub host: &'a str,
    /// Its failure domain; empty: none.
    pub zone: &'a str,
    /// The version of its software; may be empty.
    pub version: &'a str,
    pub(super) ports: u16,
    /// The extra ports and the metadata.
    pub(super) rest: PackedReader<'a>,
}

impl<'a> ContentView<'a> {
    /// Extra ports in order of their names.
    pub fn ports(&self) -> impl Iterator<Item = (&'a str, NonZeroU16)> {
        let mut rest = self.rest.clone();
        (0..self.ports).map(move |_| (rest.text(), port(&mut rest)))
    }

    /// What callers may want to know or filter by, in order of the keys.
    pub fn metadata(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        entries(self.behind_ports())
    }

    /// The value of a key of the metadata.
    pub fn value(&self, key: &str) -> Option<&'a str> {
        self.metadata().find_map(|(candidate, value)| (candidate == key).then_some(value))
    }

    pub(super) fn behind_ports(&self) -> &'a [u8] {
        let mut rest = self.rest.clone();
        for _ in 0..self.ports {
            let _skipped = (rest.text(), port(&mut rest));
        }
        rest.0
    }
}

pub(super) fn port(packed: &mut PackedReader<'_>) -> NonZeroU16 {
    NonZeroU16::new(u16::from_le_bytes(packed.bytes())).expect("a port was put there")
}
