//! What callers may want to know of an instance, as entries of text.

use std::{collections::BTreeMap, fmt, iter};

use super::packed::{PackedReader, put_text};

/// Entries in order of their keys. Its size was checked where it was read.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Metadata(pub(super) Box<[u8]>);

impl Metadata {
    /// Takes over entries, of which no text has 4 GiB: far more than any message brings.
    pub fn new(entries: &BTreeMap<String, String>) -> Self {
        let mut bytes = Vec::new();
        for text in entries.iter().flat_map(|(key, value)| [key, value]) {
            put_text(&mut bytes, text);
        }
        Self(bytes.into())
    }

    /// The entries in order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        entries(&self.0)
    }
}

/// The entries that a [`Metadata`] is made of.
pub(super) fn entries(bytes: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    let mut packed = PackedReader(bytes);
    iter::from_fn(move || (!packed.0.is_empty()).then(|| (packed.text(), packed.text())))
}

/// Metadata values can be secrets: only the keys are shown.
impl fmt::Debug for Metadata {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.iter().map(|(key, _)| key)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_gives_back_its_entries_in_order() {
        let entries = [("b", ""), ("a", "ä"), ("c c", "x\0y")];
        let entries = entries.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let metadata = Metadata::new(&BTreeMap::from(entries));
        let read: Vec<_> = metadata.iter().collect();
        assert_eq!(read, [("a", "ä"), ("b", ""), ("c c", "x\0y")]);
        assert_eq!(Metadata::default().iter().count(), 0);
    }

    #[test]
    fn metadata_shows_no_values() {
        let entries = BTreeMap::from([("token".to_owned(), "hunter2".to_owned())]);
        let metadata = Metadata::new(&entries);
        assert_eq!(format!("{metadata:?}"), r#"{"token"}"#);
    }
}
