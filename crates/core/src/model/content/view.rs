//! The parts of a content, read in place.
//!
//! Pure.

use std::num::NonZeroU16;

use super::{metadata::entries, packed::PackedReader, status::Status};

/// The parts of a [`Content`](super::Content), borrowed from it.
#[derive(Debug, Clone)]
pub struct ContentView<'a> {
    /// The status that the instance declares.
    pub status: Status,
    /// The main port.
    pub port: NonZeroU16,
    /// The share of traffic relative to the other replicas.
    pub weight: u32,
    /// The host under which callers reach the instance.
    pub host: &'a str,
    /// The failure domain; empty if there is none.
    pub zone: &'a str,
    /// The version of the software; may be empty.
    pub version: &'a str,
    pub(super) ports: u16,
    /// The extra ports and the metadata.
    pub(super) rest: PackedReader<'a>,
}

impl<'a> ContentView<'a> {
    /// Returns the extra ports, ordered by name.
    pub fn ports(&self) -> impl Iterator<Item = (&'a str, NonZeroU16)> {
        let mut rest = self.rest.clone();
        (0..self.ports).map(move |_| (rest.text(), port(&mut rest)))
    }

    /// Returns the metadata, ordered by key.
    pub fn metadata(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        entries(self.behind_ports())
    }

    /// Returns the metadata value of a key.
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
    NonZeroU16::new(u16::from_le_bytes(packed.bytes())).expect("a port was written")
}
