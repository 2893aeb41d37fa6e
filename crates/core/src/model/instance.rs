//! A replica of a service: its identity, what it says of itself, and its place in the history.

use std::{fmt, sync::Arc};

use compact_str::CompactString;
use thiserror::Error;

use super::{Content, Revision, ServiceKey, Status, WallTime};

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

impl Instance {
    /// Returns whether callers send it traffic: its own status is `Up`, whether its lease is renewed or held.
    pub fn serves(&self) -> bool {
        self.content.status() == Status::Up
    }

    /// Bytes that the instance occupies, its heap parts included (the shared key is not).
    pub fn footprint(&self) -> usize {
        let id = if self.id.0.is_heap_allocated() { self.id.0.capacity() } else { 0 };
        size_of::<Self>() + id + self.content.heap_bytes()
    }
}

/// What the server knows of an instance's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Presence {
    /// Its lease is renewed in time.
    Confirmed,
    /// Its lease ran out among so many others that it is kept: most likely the network is broken and
    /// the instance is not. Only one that is `Up` is shown as suspect and keeps its traffic; any other
    /// keeps the status that it declared, and gets none.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_any_text_without_control_characters() {
        assert!(InstanceId::parse("pod/7 ä😀", 256).is_ok());
        assert!(InstanceId::parse(&"x".repeat(256), 256).is_ok());
        assert_eq!(InstanceId::parse("", 256), Err(InstanceIdError::Empty));
        assert_eq!(InstanceId::parse("a\nb", 256), Err(InstanceIdError::ControlCharacter));
        assert_eq!(InstanceId::parse("a\u{85}b", 256), Err(InstanceIdError::ControlCharacter));
        assert!(InstanceId::parse(&"x".repeat(257), 256).is_err());
    }
}
