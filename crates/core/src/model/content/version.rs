//! The version of an instance's software.

use compact_str::CompactString;
use thiserror::Error;

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
    pub(super) fn from_valid(text: &str) -> Self {
        Self(CompactString::from(text))
    }

    /// The version as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
