//! Texts packed one behind the other. There are millions of instances, and a `String` for each
//! short text would take more memory than the text.
//!
//! Pure.

/// Marks a length of four bytes. Lengths below it take one byte.
const LONG: u8 = u8::MAX;

/// Appends a text.
pub(super) fn put_text(bytes: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()) {
        Ok(length) if length < LONG => bytes.push(length),
        _ => {
            let length = u32::try_from(text.len()).expect("a message has less than 4 GiB");
            bytes.push(LONG);
            bytes.extend(length.to_le_bytes());
        }
    }
    bytes.extend_from_slice(text.as_bytes());
}

/// Reads packed values in the order in which they were written.
#[derive(Debug, Clone)]
pub(super) struct PackedReader<'a>(pub(super) &'a [u8]);

impl<'a> PackedReader<'a> {
    pub(super) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let (bytes, rest) = self.0.split_first_chunk().expect("the value was written");
        self.0 = rest;
        *bytes
    }

    pub(super) fn text(&mut self) -> &'a str {
        let [length] = self.bytes();
        let length = match length {
            LONG => u32::from_le_bytes(self.bytes()) as usize,
            length => length.into(),
        };
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        str::from_utf8(text).expect("a text was written")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_any_length_are_read_back() {
        let texts = [0, 1, 253, 254, 255, 256, 70_000].map(|length| "ä".repeat(length / 2));
        let mut bytes = Vec::new();
        for text in &texts {
            put_text(&mut bytes, text);
            put_text(&mut bytes, "|");
        }
        let mut packed = PackedReader(&bytes);
        for text in &texts {
            assert_eq!((packed.text(), packed.text()), (text.as_str(), "|"));
        }
        assert!(packed.0.is_empty());
    }
}
