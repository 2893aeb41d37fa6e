//! A replica of a service: its identity, what it says of itself, and its place in the history.

use std::{collections::BTreeMap, fmt, net::IpAddr, num::NonZeroU16, sync::Arc};

use compact_str::CompactString;
use thiserror::Error;

use super::{Name, Revision, ServiceKey, WallTime};

/// The weight of an instance that names none.
pub const DEFAULT_WEIGHT: u32 = 100;

/// One replica of a service as the registry holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The service that it is a replica of.
    pub service: Arc<ServiceKey>,
    /// Tells the replicas of the service apart.
    pub id: InstanceId,
    /// What it says of itself.
    pub content: Content,
    /// Whether its lease is renewed.
    pub presence: Presence,
    /// The revision at which the identity was added.
    pub created: Revision,
    /// The revision of the last change to the identity.
    pub modified: Revision,
    /// When the identity was added.
    pub registered_at: WallTime,
}

/// What an instance says of itself. Two registrations with equal content look the same to everyone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
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

impl Instance {
    /// Whether callers send it traffic.
    pub fn serves(&self) -> bool {
        match self.presence {
            Presence::Confirmed => self.content.status == Status::Up,
            // Most likely the network is broken and the instance is not.
            Presence::Suspect => true,
        }
    }

    /// Bytes that the instance occupies, its heap parts included (the shared key is not).
    pub fn footprint(&self) -> usize {
        let content = &self.content;
        let texts = [&self.id.0, &content.host.0, &content.version.0];
        size_of::<Self>()
            + texts.into_iter().map(heap_bytes).sum::<usize>()
            + content.zone.as_ref().map_or(0, Name::heap_bytes)
            + content.ports.iter().map(|(name, _)| name.heap_bytes()).sum::<usize>()
            + size_of_val(&*content.ports)
            + content.metadata.footprint()
    }
}

fn heap_bytes(text: &CompactString) -> usize {
    if text.is_heap_allocated() { text.capacity() } else { 0 }
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

/// What the server knows of an instance's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Presence {
    /// Its lease is renewed in time.
    Confirmed,
    /// Its lease ran out among so many others that it is kept. What it said of its status does not
    /// count until it renews.
    Suspect,
}

/// The id of an instance within its service: not empty, no control characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(CompactString);

/// Why a text is no [`InstanceId`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InstanceIdError {
    /// There is nothing.
    #[error("must not be empty")]
    Empty,
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

impl InstanceId {
    /// Reads an id of at most `bytes_max` bytes.
    pub fn parse(text: &str, bytes_max: usize) -> Result<Self, InstanceIdError> {
        if text.is_empty() {
            return Err(InstanceIdError::Empty);
        }
        if text.len() > bytes_max {
            return Err(InstanceIdError::TooLong { bytes: text.len(), bytes_max });
        }
        if text.chars().any(char::is_control) {
            return Err(InstanceIdError::ControlCharacter);
        }
        Ok(Self(CompactString::from(text)))
    }

    /// The id that the server gives to an instance that brings none: a UUID of version 7, so that
    /// ids made later sort later.
    pub fn from_uuid(uuid: uuid::Uuid) -> Self {
        let mut buffer = uuid::Uuid::encode_buffer();
        Self(CompactString::from(&*uuid.hyphenated().encode_lower(&mut buffer)))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

/// Where an instance is reached: an IP address or a DNS name, as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host(CompactString);

/// Why a text is no [`Host`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HostError {
    /// There is nothing.
    #[error("must not be empty")]
    Empty,
    /// It has more bytes than allowed.
    #[error("has {bytes} bytes, at most {bytes_max} are allowed")]
    TooLong {
        /// How many it has.
        bytes: usize,
        /// How many are allowed.
        bytes_max: usize,
    },
    /// It is an IPv6 address in brackets.
    #[error("must be an IPv6 address without brackets")]
    Bracketed,
    /// It is neither an address nor a name.
    #[error("must be an IP address or a DNS name, without a port")]
    Malformed,
}

impl Host {
    /// Reads a host of at most `bytes_max` bytes. The form of a DNS name is that of RFC 1123 with
    /// `_` allowed besides, and a last label that is not all digits (RFC 3696, section 2).
    pub fn parse(text: &str, bytes_max: usize) -> Result<Self, HostError> {
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        if text.len() > bytes_max {
            return Err(HostError::TooLong { bytes: text.len(), bytes_max });
        }
        if text.starts_with('[') {
            return Err(HostError::Bracketed);
        }
        if text.parse::<IpAddr>().is_err() && !is_dns_name(text) {
            return Err(HostError::Malformed);
        }
        Ok(Self(CompactString::from(text)))
    }

    /// The host as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_dns_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        (1..=63).contains(&bytes.len())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && bytes.first() != Some(&b'-')
            && bytes.last() != Some(&b'-')
    };
    let last = text.rsplit('.').next().unwrap_or(text);
    text.split('.').all(is_label) && !last.bytes().all(|byte| byte.is_ascii_digit())
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

    /// The version as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Entries in order of their keys, packed: most instances have some, and there are many instances.
/// Its size was checked where it was read.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Keys and values one behind the other.
    text: Box<str>,
    /// Where each key and each value ends.
    ends: Box<[[u32; 2]]>,
}

impl Metadata {
    /// Takes over entries. They may have 4 GiB in all, far more than any message brings.
    pub fn new(entries: &BTreeMap<String, String>) -> Self {
        let mut text = String::with_capacity(
            entries.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>(),
        );
        let mut append = |part: &str| {
            text.push_str(part);
            u32::try_from(text.len()).expect("a message of 4 GiB is refused before it is read")
        };
        let ends = entries.iter().map(|(key, value)| [append(key), append(value)]).collect();
        Self { text: text.into(), ends }
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.iter().find_map(|(candidate, value)| (candidate == key).then_some(value))
    }

    /// The entries in order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let begins = std::iter::once(0).chain(self.ends.iter().map(|[_, end]| *end as usize));
        begins.zip(&self.ends).map(|(begin, [middle, end])| {
            let (middle, end) = (*middle as usize, *end as usize);
            (&self.text[begin..middle], &self.text[middle..end])
        })
    }

    fn footprint(&self) -> usize {
        self.text.len() + size_of_val(&*self.ends)
    }
}

/// Metadata values can be secrets: only the keys are shown.
impl fmt::Debug for Metadata {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.iter().map(|(key, _)| key)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_dns_names_are_hosts() {
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
        for text in ["10.0.0.7", "::1", "fe80::1", "localhost", "a-b.example", "x_1.y.", &longest] {
            assert_eq!(Host::parse(text, 253).as_ref().map(Host::as_str), Ok(text));
        }
    }

    #[test]
    fn other_texts_are_no_hosts() {
        assert_eq!(Host::parse("", 253), Err(HostError::Empty));
        assert_eq!(Host::parse("[::1]", 253), Err(HostError::Bracketed));
        let label = "a".repeat(64);
        for text in
            ["256.1.1.1", "1.2.3", "a b", "a..b", "-a", "a-", "http://a", "a:80", ".", &label, "ä"]
        {
            assert_eq!(Host::parse(text, 253), Err(HostError::Malformed), "{text:?}");
        }
        let long = "a.".repeat(127);
        assert!(matches!(Host::parse(&long, 253), Err(HostError::TooLong { bytes: 254, .. })));
    }

    #[test]
    fn ids_are_any_text_without_control_characters() {
        assert!(InstanceId::parse("pod/7 ä😀", 256).is_ok());
        assert!(InstanceId::parse(&"x".repeat(256), 256).is_ok());
        assert_eq!(InstanceId::parse("", 256), Err(InstanceIdError::Empty));
        assert_eq!(InstanceId::parse("a\nb", 256), Err(InstanceIdError::ControlCharacter));
        assert_eq!(InstanceId::parse("a\u{85}b", 256), Err(InstanceIdError::ControlCharacter));
        assert!(InstanceId::parse(&"x".repeat(257), 256).is_err());
    }

    #[test]
    fn metadata_gives_back_its_entries_in_order() {
        let entries = [("b", ""), ("a", "ä"), ("c c", "x\0y")];
        let entries = entries.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let metadata = Metadata::new(&BTreeMap::from(entries));
        let read: Vec<_> = metadata.iter().collect();
        assert_eq!(read, [("a", "ä"), ("b", ""), ("c c", "x\0y")]);
        assert_eq!(metadata.value("b"), Some(""));
        assert_eq!(Metadata::default().iter().count(), 0);
    }

    #[test]
    fn metadata_shows_no_values() {
        let entries = BTreeMap::from([("token".to_owned(), "hunter2".to_owned())]);
        let metadata = Metadata::new(&entries);
        assert_eq!(metadata.value("token"), Some("hunter2"));
        assert_eq!(metadata.value("other"), None);
        assert_eq!(format!("{metadata:?}"), r#"{"token"}"#);
    }
}
