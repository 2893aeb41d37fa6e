//! One table of the file, read key by key. A bad value is noted and hides none of the others; what
//! nobody asked for is a mistake.

use std::collections::BTreeMap;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    mistakes::{Noted, Notes},
    value::{Value, text},
};

/// A value, if there is one; or there is one that is bad, which has been noted.
pub(super) type Read<T> = Result<Option<T>, Noted>;

/// A table, and what was asked for in it.
#[derive(Debug)]
pub(super) struct Section<'a> {
    table: &'a DeTable<'a>,
    /// Where it begins, in bytes.
    begin: usize,
    /// What it is called; empty for the whole file.
    path: String,
    known: Vec<&'static str>,
    notes: &'a mut Notes,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(super) fn whole(table: &'a DeTable<'a>, notes: &'a mut Notes) -> Self {
        Self { table, begin: 0, path: String::new(), known: Vec::new(), notes }
    }

    /// What it is called.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Where it begins, in bytes.
    pub(super) fn begin(&self) -> usize {
        self.begin
    }

    /// Whether there is a value, be it good or bad.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The line where a byte is.
    pub(super) fn line(&self, byte: usize) -> usize {
        self.notes.line(byte)
    }

    /// The value of a key, as it is.
    pub(super) fn raw(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.table.get(key)
    }

    /// The value of a key, as `read` has it.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Value<'_>) -> Result<T, String>,
    ) -> Read<T> {
        let Some(value) = self.raw(key) else { return Ok(None) };
        let path = self.path_of(key);
        read(value.get_ref())
            .map(Some)
            .map_err(|message| self.notes.note(Some(value.span().start), path, message))
    }

    /// The values of a key that has a list, each as `read` has it. There is at least one.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(Value<'_>) -> Result<T, String>,
    ) -> Read<Vec<T>> {
        let Some(value) = self.raw(key) else { return Ok(None) };
        let Some(values) = value.get_ref().as_array() else {
            let kind = value.get_ref().type_str();
            return Err(self.note(key, format!("must be an array, and is of type {kind}")));
        };
        if values.is_empty() {
            return Err(self.note(key, "must not be empty: leave it away"));
        }
        let mut list = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let path = format!("{}[{index}]", self.path_of(key));
            list.push(
                read(value.get_ref())
                    .map_err(|message| self.notes.note(Some(value.span().start), path, message)),
            );
        }
        list.into_iter().collect::<Result<_, _>>().map(Some)
    }

    /// The text of each key of a table.
    pub(super) fn texts(&mut self, key: &'static str) -> Read<BTreeMap<String, String>> {
        let Some(value) = self.raw(key) else { return Ok(None) };
        let table = self.table_of(value, self.path_of(key))?;
        let mut texts = Vec::new();
        for (name, value) in table {
            let path = format!("{}.{}", self.path_of(key), name.get_ref().escape_debug());
            let read = text(value.get_ref());
            texts.push(
                read.map(|text| (name.get_ref().to_string(), text))
                    .map_err(|message| self.notes.note(Some(value.span().start), path, message)),
            );
        }
        texts.into_iter().collect::<Result<_, _>>().map(Some)
    }

    /// The table of a key, as `read` has it.
    pub(super) fn section<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> Result<T, Noted>,
    ) -> Read<T> {
        let Some(value) = self.raw(key) else { return Ok(None) };
        self.within(value, self.path_of(key), read).map(Some)
    }

    /// The tables of a key, each as `read` has it; those that are none are left out.
    pub(super) fn sections<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&mut Section<'_>) -> T,
    ) -> Result<Vec<T>, Noted> {
        let Some(value) = self.raw(key) else { return Ok(Vec::new()) };
        let Some(values) = value.get_ref().as_array() else {
            let message =
                format!("must be an array of tables, each of which begins with [[{key}]]");
            return Err(self.note(key, message));
        };
        let mut sections = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let path = format!("{}[{index}]", self.path_of(key));
            sections.extend(self.within(value, path, |section| Ok(read(section))));
        }
        Ok(sections)
    }

    /// Notes a mistake in the value of a key, or where the key is missing.
    pub(super) fn note(&mut self, key: &str, message: impl Into<String>) -> Noted {
        let begin = self.table.get(key).map_or(self.begin, |value| value.span().start);
        self.notes.note(Some(begin), self.path_of(key), message)
    }

    /// Notes a mistake of some other place.
    pub(super) fn note_at(&mut self, byte: usize, path: String, message: String) -> Noted {
        self.notes.note(Some(byte), path, message)
    }

    fn within<T>(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        path: String,
        read: impl FnOnce(&mut Section<'_>) -> Result<T, Noted>,
    ) -> Result<T, Noted> {
        let table = self.table_of(value, path.clone())?;
        let begin = value.span().start;
        let mut section =
            Section { table, begin, path, known: Vec::new(), notes: &mut *self.notes };
        let outcome = read(&mut section);
        section.finish();
        outcome
    }

    fn table_of<'v>(
        &mut self,
        value: &'v Spanned<DeValue<'v>>,
        path: String,
    ) -> Result<&'v DeTable<'v>, Noted> {
        value.get_ref().as_table().ok_or_else(|| {
            let message = format!("must be a table, and is of type {}", value.get_ref().type_str());
            self.notes.note(Some(value.span().start), path, message)
        })
    }

    /// Notes what nobody asked for.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            let name = key.get_ref();
            if !self.known.contains(&&**name) {
                let path = self.path_of(&name.escape_debug().to_string());
                let _ = self.notes.note(Some(key.span().start), path, "is no known key");
            }
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}
