//! A table of the configuration whose keys are taken one by one. It never stops at a mistake: the next one
//! is to be told as well.

use std::{
    fmt::Display,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};
use toml::{Table, Value};

/// What is left of a table, and where it stands.
pub(super) struct Section<'a> {
    table: Table,
    /// What names of keys are put after: `auth.jwt.`.
    place: String,
    pub(super) mistakes: &'a mut Vec<String>,
}

impl<'a> Section<'a> {
    pub(super) fn new(
        table: Table,
        place: impl Into<String>,
        mistakes: &'a mut Vec<String>,
    ) -> Self {
        Self { table, place: place.into(), mistakes }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    pub(super) fn mistake(&mut self, key: &str, reason: impl Display) {
        self.mistakes.push(format!("{}{key}: {reason}", self.place));
    }

    /// The value of a key; one of another type is a mistake.
    pub(super) fn take<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        let value: Value = self.table.remove(key)?;
        let read: Result<T, toml::de::Error> = Deserialize::deserialize(value);
        read.map_err(|error| self.mistake(key, error.message())).ok()
    }

    /// The value of a key that has to be there.
    pub(super) fn require<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        if !self.has(key) {
            self.mistake(key, "is missing");
        }
        self.take(key)
    }

    /// One text or a list of them, none of them empty; none where the key is missing.
    pub(super) fn texts(&mut self, key: &str) -> Option<Vec<String>> {
        let values = match self.table.remove(key)? {
            Value::Array(values) => values,
            value => vec![value],
        };
        let texts: Option<Vec<String>> = values.into_iter().map(text).collect();
        match texts {
            Some(texts) if !texts.is_empty() => Some(texts),
            _ => {
                self.mistake(key, "must be a text or a list of texts, and not empty");
                None
            }
        }
    }

    /// The bytes of the file that a key names.
    pub(super) fn file(&mut self, key: &str, base: &Path) -> Option<Vec<u8>> {
        let path = self.take::<PathBuf>(key)?;
        let read = fs::read(base.join(&path));
        read.map_err(|error| {
            self.mistake(key, format!("{} can't be read: {error}", path.display()));
        })
        .ok()
    }

    /// What has not been taken is a mistake.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            self.mistakes.push(format!("{}{key}: is no known key", self.place));
        }
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}
