//! What an instance says of itself: part by part, and in one piece.

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

impl Content {
    /// Whether it takes traffic.
    pub fn status(&self) -> Status {
        Status::from_number(self.0[0])
    }

    /// Its parts.
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
