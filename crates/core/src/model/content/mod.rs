//! The declared part of an instance: its address, status, metadata and so on. [`Parts`] has it as
//! fields, [`Content`] as one allocation, [`ContentView`] reads that in place.
//!
//! Pure.

mod metadata;
mod packed;
mod status;
mod version;
mod view;

use std::{fmt, num::NonZeroU16};

use self::{
    packed::{PackedReader, put_text},
    view::port,
};
use super::{Host, Name};

pub use metadata::Metadata;
pub use status::Status;
pub use version::{Version, VersionError};
pub use view::ContentView;

/// The weight of an instance that declares none.
pub const DEFAULT_WEIGHT: u32 = 100;

/// The declared part of an instance. Watchers can't distinguish registrations with equal content.
///
/// One allocation: the status, the main port, the weight, the texts that every instance has, the
/// number of extra ports, the extra ports, the metadata.
#[derive(Clone, PartialEq, Eq)]
pub struct Content(Box<[u8]>);

/// The parts of a [`Content`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// The host under which callers reach the instance.
    pub host: Host,
    /// The main port.
    pub port: NonZeroU16,
    /// Extra ports, ordered by name.
    pub ports: Box<[(Name, NonZeroU16)]>,
    /// The status that the instance declares.
    pub status: Status,
    /// The failure domain, if there is one.
    pub zone: Option<Name>,
    /// The version of the software; may be empty.
    pub version: Version,
    /// The share of traffic relative to the other replicas.
    pub weight: u32,
    /// Entries for callers to read or filter by.
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
        let ports = u16::try_from(parts.ports.len()).expect("a message has fewer ports");
        bytes.extend(ports.to_le_bytes());
        for (name, port) in &parts.ports {
            put_text(&mut bytes, name.as_str());
            bytes.extend(port.get().to_le_bytes());
        }
        bytes.extend_from_slice(&parts.metadata.0);
        Self(bytes.into())
    }
}

impl Content {
    /// Returns the status without reading the other parts.
    pub fn status(&self) -> Status {
        Status::from_number(self.0[0])
    }

    /// Returns a view of the parts.
    pub fn view(&self) -> ContentView<'_> {
        let mut rest = PackedReader(&self.0);
        let [status] = rest.bytes();
        ContentView {
            status: Status::from_number(status),
            port: port(&mut rest),
            weight: u32::from_le_bytes(rest.bytes()),
            host: rest.text(),
            zone: rest.text(),
            version: rest.text(),
            ports: u16::from_le_bytes(rest.bytes()),
            rest,
        }
    }

    /// Copies the host.
    pub fn host(&self) -> Host {
        Host::from_valid(self.view().host)
    }

    /// Copies the parts.
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

    /// Returns the bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts().fmt(formatter)
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
    fn content_keeps_its_parts() {
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
    fn view_shows_the_parts() {
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
    fn debug_output_has_no_metadata_values() {
        let shown = format!("{:?}", Content::from(&parts()));
        assert!(shown.contains(r#"{"a", "b"}"#) && !shown.contains("hunter2"), "{shown}");
    }
}
