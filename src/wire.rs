//! Protobuf fields as bytes, for what is written so often that no message is made of it first.

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// Fields on the wire. Those that are empty or 0 are left out.
pub(crate) struct Fields<'a>(pub(crate) &'a mut Vec<u8>);

impl Fields<'_> {
    pub(crate) fn number(&mut self, tag: u32, number: u64) {
        if number != 0 {
            self.present(tag, number);
        }
    }

    /// A number that is told where it is 0 as well.
    pub(crate) fn present(&mut self, tag: u32, number: u64) {
        encode_key(tag, WireType::Varint, self.0);
        encode_varint(number, self.0);
    }

    pub(crate) fn fixed(&mut self, tag: u32, number: u64) {
        if number != 0 {
            encode_key(tag, WireType::SixtyFourBit, self.0);
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    pub(crate) fn text(&mut self, tag: u32, text: &str) {
        if !text.is_empty() {
            self.bytes(tag, text.as_bytes());
        }
    }

    pub(crate) fn bytes(&mut self, tag: u32, bytes: &[u8]) {
        self.begin(tag, bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// Begins what has so many bytes.
    pub(crate) fn begin(&mut self, tag: u32, bytes: usize) {
        encode_key(tag, WireType::LengthDelimited, self.0);
        encode_varint(bytes as u64, self.0);
    }
}

// How long fields are, all of whose keys are of one byte.

pub(crate) fn number_len(number: u64) -> usize {
    if number == 0 { 0 } else { 1 + encoded_len_varint(number) }
}

pub(crate) fn bytes_len(bytes: &[u8]) -> usize {
    1 + encoded_len_varint(bytes.len() as u64) + bytes.len()
}

pub(crate) fn text_len(text: &str) -> usize {
    if text.is_empty() { 0 } else { bytes_len(text.as_bytes()) }
}
