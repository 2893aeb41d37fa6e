//! What an instance says of itself: part by part, and in one piece.

use std::{fmt, num::NonZeroU16};

use compact_str::CompactString;
use thiserror::Error;

use super::{
    Host, Metadata, Name,
    metadata::entries,
    packed::{PackedReader, put_text},
};

/// The weight of an instance that names none.
pub const DEFAULT_WEIGHT: u32 = 100;

/// What an instance says of itself. Two registrations with equal content look the same to everyone.
///
/// In one piece: the status, the main port, the weight, the texts that every instance has, the number
/// of extra ports and these, and to the end the metadata.
#[derive(Clone, PartialEq, Eq)]
pub struct Content(Box<[u8]>);

/// The parts of a [`Content`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// Where it is reached.
    pub host: Host,
    /// The main port.
    pub port: NonZeroU16,
    /// Extra ports in order of their names.
    pub ports: Box<[(Name, NonZeroU16)]>,
    /// Whether it takes traffic.
    pub status: Status,
    /// Its failure domain, if it has one.
    pub zone: Option<Name>,
    /// The version of its software; may be empty.
    pub version: Version,
    /// Its share of traffic relative to the other replicas.
    pub weight: u32,
    /// What callers may want to know or filter by.
    pub metadata: Metadata,
}

impl From<&Parts> for Content {
    fn from(parts: &Parts) -> Self {
        let mut bytes = vec![parts.status as u8];
        bytes.extend(parts.port.get().to_le_bytes());
        bytes.extend(parts.weight.to_le_bytes());
        put_text(&mut bytes, parts.host.as_str());
        put_text(&mut bytes, parts.zone.as_ref().map_or("", Name::as_str));
        put_text(&mut bytes, parts.version.as_str());
        let ports = u16::try_from(parts.ports.len()).expect("no message brings as many ports");
        bytes.extend(ports.to_le_bytes());
        for (name, port) in &parts.ports {
            put_text(&mut bytes, name.as_str());
            bytes.extend(port.get().to_le_bytes());
        }
        bytes.extend_from_slice(&parts.metadata.0);
        Self(bytes.into())
    }
}

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
    ports: u16,
    /// The extra ports and the metadata.
    rest: PackedReader<'a>,
}

impl Content {
    /// Whether it takes traffic.
    pub fn status(&self) -> Status {
        Status::of(self.0[0])
    }

    /// Its parts.
    pub fn view(&self) -> ContentView<'_> {
        let mut rest = PackedReader(&self.0);
        let [status] = rest.bytes();
        ContentView {
            status: Status::of(status),
            port: port(&mut rest),
            weight: u32::from_le_bytes(rest.bytes()),
            host: rest.text(),
            zone: rest.text(),
            version: rest.text(),
            ports: u16::from_le_bytes(rest.bytes()),
            rest,
        }
    }

    /// Its parts, to make another content of.
    pub fn parts(&self) -> Parts {
        let view = self.view();
        Parts {
            host: Host::from_valid(view.host),
            port: view.port,
            ports: view.ports().map(|(name, port)| (Name::from_valid(name), port)).collect(),
            status: view.status,
            zone: (!view.zone.is_empty()).then(|| Name::from_valid(view.zone)),
            version: Version::from_valid(view.version),
            weight: view.weight,
            metadata: Metadata(view.behind_ports().into()),
        }
    }

    /// Bytes that it holds on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.0.len()
    }
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

    fn behind_ports(&self) -> &'a [u8] {
        let mut rest = self.rest.clone();
        for _ in 0..self.ports {
            let _skipped = (rest.text(), port(&mut rest));
        }
        rest.0
    }
}

fn port(packed: &mut PackedReader<'_>) -> NonZeroU16 {
    NonZeroU16::new(u16::from_le_bytes(packed.bytes())).expect("a port was put there")
}

impl fmt::Debug for Content {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts().fmt(formatter)
    }
}

/// Whether an instance takes traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// It runs but is not ready yet.
    Starting,
    /// It takes traffic.
    Up,
    /// It finishes what it has and takes nothing new.
    Draining,
    /// It runs and knows that it can't serve.
    Down,
}

impl Status {
    /// The one of this number.
    fn of(number: u8) -> Self {
        let all = [Self::Starting, Self::Up, Self::Draining, Self::Down];
        all[usize::from(number)]
    }
}

/// The version of an instance's software: free text without control characters, maybe empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(CompactString);

/// Why a text is no [`Version`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VersionError {
    /// It has more bytes than allowed.
    #[error("has {bytes} bytes, at most {bytes_max} are allowed")]
    TooLong {
        /// How many it has.
        bytes: usize,
        /// How many are allowed.
        bytes_max: usize,
    },
    /// It has a control character.
    #[error("must not have control characters")]
    ControlCharacter,
}

impl Version {
    /// Reads a version of at most `bytes_max` bytes.
    pub fn parse(text: &str, bytes_max: usize) -> Result<Self, VersionError> {
        if text.len() > bytes_max {
            return Err(VersionError::TooLong { bytes: text.len(), bytes_max });
        }
        if text.chars().any(char::is_control) {
            return Err(VersionError::ControlCharacter);
        }
        Ok(Self(CompactString::from(text)))
    }

    /// One that was read before.
    fn from_valid(text: &str) -> Self {
        Self(CompactString::from(text))
    }

    /// The version as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn parts() -> Parts {
        let name = |text| Name::parse(text, 128).unwrap();
        let entries = [("a", ""), ("b", "hunter2")];
        let entries = entries.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Parts {
            host: Host::parse("2001:db8::7", 253).unwrap(),
            port: NonZeroU16::MAX,
            ports: [("admin", 1), ("metrics", 9_090)]
                .map(|(text, port)| (name(text), NonZeroU16::new(port).unwrap()))
                .into(),
            status: Status::Draining,
            zone: Some(name("eu-1")),
            version: Version::parse("v 7", 128).unwrap(),
            weight: u32::MAX,
            metadata: Metadata::new(&BTreeMap::from(entries)),
        }
    }

    #[test]
    fn a_content_has_the_parts_that_it_was_made_of() {
        let bare = Parts {
            ports: Box::default(),
            status: Status::Starting,
            zone: None,
            version: Version::parse("", 128).unwrap(),
            weight: 0,
            metadata: Metadata::default(),
            ..parts()
        };
        for status in [Status::Starting, Status::Up, Status::Draining, Status::Down] {
            for parts in [Parts { status, ..parts() }, Parts { status, ..bare.clone() }] {
                let content = Content::from(&parts);
                assert_eq!((content.parts(), content.status()), (parts, status));
            }
        }
    }

    #[test]
    fn a_view_shows_the_parts() {
        let content = Content::from(&parts());
        let view = content.view();
        let ports: Vec<_> = view.ports().map(|(name, port)| (name, port.get())).collect();
        assert_eq!(ports, [("admin", 1), ("metrics", 9_090)]);
        assert_eq!((view.host, view.port.get()), ("2001:db8::7", u16::MAX));
        assert_eq!((view.zone, view.version, view.weight), ("eu-1", "v 7", u32::MAX));
        assert_eq!(view.metadata().collect::<Vec<_>>(), [("a", ""), ("b", "hunter2")]);
        assert_eq!((view.value("a"), view.value("b")), (Some(""), Some("hunter2")));
        assert_eq!(view.value("c"), None);
    }

    #[test]
    fn a_content_shows_no_values_of_metadata() {
        let shown = format!("{:?}", Content::from(&parts()));
        assert!(shown.contains(r#"{"a", "b"}"#) && !shown.contains("hunter2"), "{shown}");
    }
}
