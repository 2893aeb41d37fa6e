//! Protobuf fields as bytes, for what is written so often that no message is made of it first.

use prost::encoding::{WireType, encode_varint, encoded_len_varint};

/// Fields on the wire, with tags below 16. Those that are empty or 0 are left out.
pub(crate) struct Fields<'a>(pub(crate) &'a mut Vec<u8>);

impl Fields<'_> {
    pub(crate) fn number(&mut self, tag: u32, number: u64) {
        if number != 0 {
            self.present(tag, number);
        }
    }

    /// A number that is told where it is 0 as well.
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

    /// Begins what has so many bytes.
    pub(crate) fn begin(&mut self, tag: u32, bytes: usize) {
        self.key(tag, WireType::LengthDelimited);
        self.varint(bytes as u64);
    }

    fn key(&mut self, tag: u32, wire_type: WireType) {
        debug_assert!(tag < 16, "a key of one byte");
        self.0.push((tag << 3) as u8 | wire_type as u8);
    }

    /// Most are small.
    fn varint(&mut self, number: u64) {
        match u8::try_from(number) {
            Ok(byte) if byte < 0x80 => self.0.push(byte),
            _ => encode_varint(number, self.0),
        }
    }
}

// How long fields are.

pub(crate) fn number_len(number: u64) -> usize {
    if number == 0 { 0 } else { 1 + encoded_len_varint(number) }
}

/// Of what has so many bytes.
pub(crate) fn bytes_len(bytes: usize) -> usize {
    1 + encoded_len_varint(bytes as u64) + bytes
}

pub(crate) fn text_len(text: &str) -> usize {
    if text.is_empty() { 0 } else { bytes_len(text.len()) }
}
