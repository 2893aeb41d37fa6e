//! The metadata of an instance: entries of text.
//!
//! Pure.

use std::{collections::BTreeMap, fmt, iter};

use super::packed::{PackedReader, put_text};

/// Entries ordered by key. The API checks their size.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Metadata(pub(super) Box<[u8]>);

impl Metadata {
    /// Packs entries whose texts have less than 4 GiB each, which no message exceeds.
    pub fn new(entries: &BTreeMap<String, String>) -> Self {
        let mut bytes = Vec::new();
        for text in entries.iter().flat_map(|(key, value)| [key, value]) {
            put_text(&mut bytes, text);
        }
        Self(bytes.into())
    }

    /// Returns the entries, ordered by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        entries(&self.0)
    }
}

/// Reads the entries of packed [`Metadata`].
pub(super) fn entries(bytes: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    let mut packed = PackedReader(bytes);
    iter::from_fn(move || (!packed.0.is_empty()).then(|| (packed.text(), packed.text())))
}

/// Shows only the keys: values can be secrets.
impl fmt::Debug for Metadata {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.iter().map(|(key, _)| key)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_has_its_entries_in_order() {
        let entries = [("b", ""), ("a", "ä"), ("c c", "x\0y")];
        let entries = entries.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let metadata = Metadata::new(&BTreeMap::from(entries));
        let read: Vec<_> = metadata.iter().collect();
        assert_eq!(read, [("a", "ä"), ("b", ""), ("c c", "x\0y")]);
        assert_eq!(Metadata::default().iter().count(), 0);
    }

    #[test]
    fn debug_output_has_no_values() {
        let entries = BTreeMap::from([("token".to_owned(), "hunter2".to_owned())]);
        let metadata = Metadata::new(&entries);
        assert_eq!(format!("{metadata:?}"), r#"{"token"}"#);
    }
}
