//! A replica of a service: its identity, its content, and its revisions.
//!
//! Pure.

use std::{fmt, sync::Arc};

use compact_str::CompactString;
use thiserror::Error;

use super::{Content, Revision, ServiceKey, Status, WallTime};

/// One replica of a service as the registry holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The service of the instance.
    pub service: Arc<ServiceKey>,
    /// The id within the service.
    pub id: InstanceId,
    /// The part that the instance declares.
    pub content: Content,
    /// The state of its lease.
    pub presence: Presence,
    /// The revision at which the identity was added.
    pub created: Revision,
    /// The revision of the last change to the identity.
    pub modified: Revision,
    /// The time at which the identity was added.
    pub registered_at: WallTime,
}

impl Instance {
    /// Returns whether callers send it traffic: its status is `Up`. A held lease makes no
    /// difference.
    pub fn serves(&self) -> bool {
        self.content.status() == Status::Up
    }

    /// Returns the bytes that the instance occupies, including its heap parts and excluding the
    /// shared key.
    pub fn footprint(&self) -> usize {
        let id = if self.id.0.is_heap_allocated() { self.id.0.capacity() } else { 0 };
        size_of::<Self>() + id + self.content.heap_bytes()
    }
}

/// The state of an instance's lease, as readers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Presence {
    /// The lease is renewed in time.
    Confirmed,
    /// The lease expired together with many others and is held, because a broken network is more
    /// likely than so many dead instances. An instance that is `Up` is shown as suspect and keeps
    /// its traffic. Any other shows its own status and gets no traffic, as before.
    Suspect,
}

/// The id of an instance within its service: not empty, no control characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(CompactString);

/// An invalid [`InstanceId`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InstanceIdError {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// The text has more bytes than allowed.
    #[error("has {bytes} bytes, at most {bytes_max} are allowed")]
    TooLong {
        /// The bytes that it has.
        bytes: usize,
        /// The bytes that are allowed.
        bytes_max: usize,
    },
    /// The text has a control character.
    #[error("must not have control characters")]
    ControlCharacter,
}

impl InstanceId {
    /// Parses an id of at most `bytes_max` bytes.
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

    /// Makes the id of an instance that brings none. A UUID of version 7 sorts by the time at which
    /// it was made.
    pub fn from_uuid(uuid: uuid::Uuid) -> Self {
        let mut buffer = uuid::Uuid::encode_buffer();
        Self(CompactString::from(&*uuid.hyphenated().encode_lower(&mut buffer)))
    }

    /// Returns the id as text.
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
