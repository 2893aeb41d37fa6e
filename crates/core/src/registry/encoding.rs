//! Bytes that the API encodes once and that all readers share.

use std::sync::OnceLock;

use bytes::Bytes;

/// A place for what the border encodes once and shares: filled by the first who needs it, empty
/// again in a changed copy.
#[derive(Debug, Default)]
pub struct SharedEncoding(OnceLock<Bytes>);

impl SharedEncoding {
    /// The bytes; made now if nobody did before.
    pub fn bytes_or_encode(&self, make: impl FnOnce() -> Bytes) -> &Bytes {
        self.0.get_or_init(make)
    }

    /// The bytes, if they are encoded.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> Option<&Bytes> {
        self.0.get()
    }
}
