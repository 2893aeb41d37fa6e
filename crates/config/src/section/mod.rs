//! A table of a configuration file, read key by key.
//! Invariant: an invalid value hides no other error, and a key that nothing read is an error.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    ConfigError, ConfigErrors, Invalid,
    error::ErrorCollector,
    value::{Value, from_str, string, type_error},
};

/// A value, if the key is there; [`Invalid`] if it is there and its error is recorded.
pub type Read<T> = Result<Option<T>, Invalid>;

/// A table of a configuration file.
///
/// Records every error, so a caller reads all keys before it returns [`Invalid`].
#[derive(Debug)]
pub struct Section<'a> {
    table: &'a DeTable<'a>,
    /// The offset of the table in the file, in bytes.
    offset: usize,
    /// The table's path; empty for the whole file.
    path: String,
    known: Vec<&'static str>,
    errors: &'a mut ErrorCollector,
}

/// Reads the text of a file.
///
/// # Errors
/// All errors that `read` recorded; the first syntax error, if the text is not TOML.
///
/// ```
/// use waypost_config::{parse, value};
///
/// let read = |text| {
///     parse(text, |file| {
///         let name = file.required("name", value::string);
///         let retries = file.read("retries", |value| value::integer(value, 0..=10));
///         Ok((name?, retries?.unwrap_or(1)))
///     })
/// };
/// assert_eq!(read("name = 'a'"), Ok(("a".to_owned(), 1)));
/// let errors = read("retries = 11\nretires = 2").unwrap_err();
/// assert_eq!(
///     errors.to_string(),
///     "line 1: name: is missing\n\
///      line 1: retries: '11' must be 0 to 10\n\
///      line 2: retires: is no known key",
/// );
/// ```
pub fn parse<T>(
    text: &str,
    read: impl FnOnce(&mut Section<'_>) -> Result<T, Invalid>,
) -> Result<T, ConfigErrors> {
    let mut errors = ErrorCollector::new(text);
    let outcome = match DeTable::parse(text) {
        Ok(table) => {
            let mut file = Section {
                table: table.get_ref(),
                offset: 0,
                path: String::new(),
                known: Vec::new(),
                errors: &mut errors,
            };
            let outcome = read(&mut file);
            file.finish();
            outcome
        }
        Err(error) => {
            let offset = error.span().map(|span| span.start);
            Err(errors.record(offset, "", error.message().replace('\n', " ")))
        }
    };
    errors.finish(outcome)
}

/// Decodes the bytes of a file.
///
/// # Errors
/// The bytes are not UTF-8.
pub fn decode(bytes: &[u8]) -> Result<&str, ConfigError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let valid = &bytes[..error.valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        ConfigError { line: Some(line), ..ConfigError::of_file("must be UTF-8") }
    })
}

impl<'a> Section<'a> {
    /// The table's path in the file, such as `routes[3]`; empty for the whole file.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The offset of the table in the file, in bytes.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Returns the line that contains an offset.
    #[must_use]
    pub fn line(&self, offset: usize) -> usize {
        self.errors.line(offset)
    }

    /// Returns whether the key is there, valid or not.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Reads the value of a key.
    ///
    /// # Errors
    /// `read` returned an error, which is recorded.
    pub fn read<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Value<'_>) -> Result<T, String>,
    ) -> Read<T> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let path = self.path_of(key);
        self.record(read(value.get_ref()), value, path).map(Some)
    }

    /// Reads the value of a key that must be there.
    ///
    /// # Errors
    /// The key is missing, or `read` returned an error; it is recorded.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Value<'_>) -> Result<T, String>,
    ) -> Result<T, Invalid> {
        self.read(key, read)?.ok_or_else(|| self.error(key, "is missing"))
    }

    /// Reads each value of an array.
    ///
    /// # Errors
    /// The value is not an array, or `read` returned an error for a value; all are recorded.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(Value<'_>) -> Result<T, String>,
    ) -> Read<Vec<T>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let Some(values) = value.get_ref().as_array() else {
            return Err(self.error(key, type_error("an array", value.get_ref())));
        };
        let mut list = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let path = format!("{}[{index}]", self.path_of(key));
            list.push(self.record(read(value.get_ref()), value, path));
        }
        list.into_iter().collect::<Result<_, _>>().map(Some)
    }

    /// Reads each value of an array that must not be empty.
    ///
    /// # Errors
    /// As of [`list`](Self::list), and if the array is empty.
    pub fn nonempty_list<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(Value<'_>) -> Result<T, String>,
    ) -> Read<Vec<T>> {
        match self.list(key, read)? {
            Some(list) if list.is_empty() => Err(self.error(key, "must not be empty: omit it")),
            list => Ok(list),
        }
    }

    /// Reads one value, or each value of an array that must not be empty.
    ///
    /// # Errors
    /// As of [`nonempty_list`](Self::nonempty_list).
    pub fn one_or_more<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(Value<'_>) -> Result<T, String>,
    ) -> Read<Vec<T>> {
        match self.table.get(key) {
            Some(value) if value.get_ref().is_array() => self.nonempty_list(key, read),
            _ => Ok(self.read(key, read)?.map(|value| vec![value])),
        }
    }

    /// Reads one value, or each value of an array, which must be there and not be empty.
    ///
    /// # Errors
    /// As of [`list`](Self::list), and if the key is missing or the array is empty.
    pub fn required_one_or_more<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(Value<'_>) -> Result<T, String>,
    ) -> Result<Vec<T>, Invalid> {
        let values = match self.table.get(key) {
            Some(value) if value.get_ref().is_array() => self.list(key, read)?,
            _ => self.read(key, read)?.map(|value| vec![value]),
        };
        match values {
            Some(values) if values.is_empty() => Err(self.error(key, "must not be empty")),
            values => values.ok_or_else(|| self.error(key, "is missing")),
        }
    }

    /// Reads a table of strings.
    ///
    /// # Errors
    /// The value is not a table, or a value of it is not a string; all are recorded.
    pub fn string_map(&mut self, key: &'static str) -> Read<BTreeMap<String, String>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let table = self.table_of(value, self.path_of(key))?;
        let mut entries = Vec::new();
        for (name, value) in table {
            let path = format!("{}.{}", self.path_of(key), name.get_ref().escape_debug());
            let entry = string(value.get_ref()).map(|text| (name.get_ref().to_string(), text));
            entries.push(self.record(entry, value, path));
        }
        entries.into_iter().collect::<Result<_, _>>().map(Some)
    }

    /// Reads a table.
    ///
    /// # Errors
    /// The value is not a table, which is recorded, or `read` returned [`Invalid`].
    pub fn table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> Result<T, Invalid>,
    ) -> Read<T> {
        let Some(value) = self.value(key) else { return Ok(None) };
        self.within(value, self.path_of(key), read).map(Some)
    }

    /// Reads each table of an array; omits values that are not tables, whose errors are recorded.
    ///
    /// # Errors
    /// The value is not an array, which is recorded.
    pub fn tables<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Section<'_>) -> T,
    ) -> Result<Vec<T>, Invalid> {
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let Some(values) = value.get_ref().as_array() else {
            let message =
                format!("must be an array of tables, each of which begins with [[{key}]]");
            return Err(self.error(key, message));
        };
        let mut tables = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let path = format!("{}[{index}]", self.path_of(key));
            tables.extend(self.within(value, path, |section| Ok(read(section))));
        }
        Ok(tables)
    }

    /// Reads each table of a table whose keys are names, such as `[issuer.NAME]`; omits values that
    /// are not tables, whose errors are recorded.
    ///
    /// # Errors
    /// The value is not a table, which is recorded.
    pub fn named_tables<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&str, &mut Section<'_>) -> T,
    ) -> Result<Vec<T>, Invalid> {
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let table = self.table_of(value, self.path_of(key))?;
        let mut tables = Vec::new();
        for (name, value) in table {
            let path = format!("{}.{}", self.path_of(key), name.get_ref().escape_debug());
            tables.extend(self.within(value, path, |section| Ok(read(name.get_ref(), section))));
        }
        Ok(tables)
    }

    /// Reads the bytes of the file that a key names, relative to `directory`. Blocks.
    ///
    /// # Errors
    /// The file cannot be read, which is recorded.
    pub fn file(&mut self, key: &'static str, directory: &Path) -> Read<Vec<u8>> {
        let Some(path) = self.read(key, from_str::<PathBuf>)? else { return Ok(None) };
        match fs::read(directory.join(&path)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => Err(self.error(key, format!("cannot read {}: {error}", path.display()))),
        }
    }

    /// Reads the TOML file that a key names, relative to `directory`. Blocks.
    ///
    /// # Errors
    /// The file cannot be read, or has errors; all are recorded at the key, with the file and line.
    pub fn toml_file<T>(
        &mut self,
        key: &'static str,
        directory: &Path,
        read: impl FnOnce(&mut Section<'_>) -> Result<T, Invalid>,
    ) -> Read<T> {
        let Some(bytes) = self.file(key, directory)? else { return Ok(None) };
        let parsed = decode(&bytes).map_err(ConfigErrors::from).and_then(|text| parse(text, read));
        parsed.map(Some).map_err(|errors| {
            let name = self.table.get(key).and_then(|value| value.get_ref().as_str());
            for error in errors.0 {
                let _ = self.error(key, format!("{}, {error}", name.unwrap_or_default()));
            }
            Invalid
        })
    }

    /// Records an error of a key's value, or of the table, if the key is missing.
    pub fn error(&mut self, key: &str, message: impl Into<String>) -> Invalid {
        let offset = self.table.get(key).map_or(self.offset, |value| value.span().start);
        self.errors.record(Some(offset), self.path_of(key), message)
    }

    /// Records an error of another place.
    pub fn error_at(&mut self, offset: usize, path: String, message: String) -> Invalid {
        self.errors.record(Some(offset), path, message)
    }

    fn value(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.table.get(key)
    }

    fn record<T>(
        &mut self,
        read: Result<T, String>,
        value: &Spanned<DeValue<'_>>,
        path: String,
    ) -> Result<T, Invalid> {
        read.map_err(|message| self.errors.record(Some(value.span().start), path, message))
    }

    fn within<T>(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        path: String,
        read: impl FnOnce(&mut Section<'_>) -> Result<T, Invalid>,
    ) -> Result<T, Invalid> {
        let table = self.table_of(value, path.clone())?;
        let offset = value.span().start;
        let mut section =
            Section { table, offset, path, known: Vec::new(), errors: &mut *self.errors };
        let outcome = read(&mut section);
        section.finish();
        outcome
    }

    fn table_of<'v>(
        &mut self,
        value: &'v Spanned<DeValue<'v>>,
        path: String,
    ) -> Result<&'v DeTable<'v>, Invalid> {
        let table = value.get_ref().as_table();
        self.record(table.ok_or_else(|| type_error("a table", value.get_ref())), value, path)
    }

    /// Records the keys that nothing read.
    fn finish(self) {
        for key in self.table.keys() {
            let name = key.get_ref();
            if !self.known.contains(&&**name) {
                let path = self.path_of(&name.escape_debug().to_string());
                let _ = self.errors.record(Some(key.span().start), path, "is no known key");
            }
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

#[cfg(test)]
mod tests;
