//! Bytes that the API encodes once and that all readers share.
//!
//! Invariant: a changed copy of the encoded value starts empty.

use std::sync::OnceLock;

use bytes::Bytes;

/// The encoded form of a value. The first reader fills it.
#[derive(Debug, Default)]
pub struct SharedEncoding(OnceLock<Bytes>);

impl SharedEncoding {
    /// Returns the bytes; encodes them in the first call.
    pub fn bytes_or_encode(&self, encode: impl FnOnce() -> Bytes) -> &Bytes {
        self.0.get_or_init(encode)
    }

    /// Returns the bytes, if they are encoded.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> Option<&Bytes> {
        self.0.get()
    }
}
