//! Protobuf fields as bytes, for messages that are encoded so often that no prost message is built
//! first. Tests hold the bytes against prost.

mod instance;

use prost::encoding::{WireType, encode_varint, encoded_len_varint};

pub(crate) use instance::put_identity_and_content;

/// Writes fields whose numbers are below 16. As proto3 has it, empty and 0 are left out.
pub(crate) struct Fields<'a>(pub(crate) &'a mut Vec<u8>);

impl Fields<'_> {
    pub(crate) fn number(&mut self, tag: u32, number: u64) {
        if number != 0 {
            self.present(tag, number);
        }
    }

    /// Writes a number, even if it is 0.
    pub(crate) fn present(&mut self, tag: u32, number: u64) {
        self.key(tag, WireType::Varint);
        self.varint(number);
    }

    pub(crate) fn fixed(&mut self, tag: u32, number: u64) {
        if number != 0 {
            self.key(tag, WireType::SixtyFourBit);
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

    /// Starts a field of the given length, which the caller writes.
    pub(crate) fn begin(&mut self, tag: u32, bytes: usize) {
        self.key(tag, WireType::LengthDelimited);
        self.varint(bytes as u64);
    }

    fn key(&mut self, tag: u32, wire_type: WireType) {
        debug_assert!(tag < 16, "the key has one byte");
        self.0.push((tag << 3) as u8 | wire_type as u8);
    }

    /// Writes a varint. Most are small.
    fn varint(&mut self, number: u64) {
        match u8::try_from(number) {
            Ok(byte) if byte < 0x80 => self.0.push(byte),
            _ => encode_varint(number, self.0),
        }
    }
}

/// Returns the length of a number's field.
pub(crate) fn number_len(number: u64) -> usize {
    if number == 0 { 0 } else { 1 + encoded_len_varint(number) }
}

/// Returns the length of a field whose content has the given length.
pub(crate) fn bytes_len(bytes: usize) -> usize {
    1 + encoded_len_varint(bytes as u64) + bytes
}

/// Returns the length of a text's field.
pub(crate) fn text_len(text: &str) -> usize {
    if text.is_empty() { 0 } else { bytes_len(text.len()) }
}
