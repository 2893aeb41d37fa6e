//! The version of an instance's software.
//!
//! Pure.

use compact_str::CompactString;
use thiserror::Error;

/// The version of an instance's software: free text without control characters; may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(CompactString);

/// An invalid [`Version`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VersionError {
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

impl Version {
    /// Parses a version of at most `bytes_max` bytes.
    pub fn parse(text: &str, bytes_max: usize) -> Result<Self, VersionError> {
        if text.len() > bytes_max {
            return Err(VersionError::TooLong { bytes: text.len(), bytes_max });
        }
        if text.chars().any(char::is_control) {
            return Err(VersionError::ControlCharacter);
        }
        Ok(Self(CompactString::from(text)))
    }

    /// Makes one of a text that was checked before.
    pub(super) fn from_valid(text: &str) -> Self {
        Self(CompactString::from(text))
    }

    /// Returns the version as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
