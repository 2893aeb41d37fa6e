//! Reads a policy from its file: whole or not.
//!
//! `rules` reads `[[allow]]`, `limits` `[[limit]]`, `credentials` tokens, issuers and `revoked`;
//! `names` has the forms of principals.
//! Invariant: a file with one error is no policy, and every error has its line.

mod credentials;
mod limits;
mod names;
mod rules;

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use waypost_config::{
    ConfigError, ConfigErrors, Invalid, Section, decode, parse,
    value::{Value, boolean, string},
};

use self::names::Names;
use super::{
    token::{TOKEN_PREFIX, sha256},
    whole::Policy,
};

/// Reads the bytes of a file.
type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// The greatest length of a policy, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The greatest length of a file with keys, in bytes.
const KEYS_BYTES_MAX: u64 = 1 << 20;

/// The greatest number of tables `[[allow]]`, and of tables `[[limit]]`.
const RULES_MAX: usize = 4096;

/// The greatest number of values in one list of a table.
const LIST_MAX: usize = 1024;

impl Policy {
    /// Parses the text of a policy, and reads the key files that it names, relative to `directory`.
    /// Blocks.
    ///
    /// # Errors
    /// All errors of the text and of the key files, each with its line in the text.
    pub fn parse(text: &str, directory: &Path) -> Result<Self, ConfigErrors> {
        Self::parse_with(text, directory, &|path| read_file(path, KEYS_BYTES_MAX))
    }

    /// Parses the text of a policy, with another reader of key files: one that has read them
    /// together with the text. See [`key_files`](Self::key_files).
    ///
    /// # Errors
    /// As of [`parse`](Self::parse).
    pub fn parse_with(
        text: &str,
        directory: &Path,
        read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
    ) -> Result<Self, ConfigErrors> {
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(ConfigError::of_file(too_long("the policy", FILE_BYTES_MAX)).into());
        }
        parse(text, |file| Self::read_from(file, directory, read))
            .map(|policy| Self { sha256: sha256(text.as_bytes()), ..policy })
    }

    /// Reads a policy of at most 4 MiB, and the key files that it names beside it. Blocks.
    ///
    /// # Errors
    /// As of [`parse`](Self::parse), and if the file cannot be read or is not UTF-8.
    pub fn read(path: &Path) -> Result<Self, ConfigErrors> {
        let read = read_file(path, FILE_BYTES_MAX);
        let bytes = check_file(read, &path.display().to_string(), FILE_BYTES_MAX)
            .map_err(ConfigError::of_file)?;
        Self::parse(decode(&bytes)?, path.parent().unwrap_or(Path::new("")))
    }

    /// Returns the key files that a text names, even if it is no valid policy: a change of one of
    /// them may make it valid.
    #[must_use]
    pub fn key_files(text: &str, directory: &Path) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let _ = parse(text, |file| {
            file.named_tables("issuer", |_, issuer| {
                let keys = issuer.read("keys", string).ok().flatten();
                files.extend(keys.map(|keys| directory.join(keys)));
            })
        });
        files.truncate(credentials::ISSUERS_MAX);
        files
    }

    fn read_from(
        file: &mut Section<'_>,
        directory: &Path,
        read: ReadFile<'_>,
    ) -> Result<Self, Invalid> {
        let is_enforced = file.read("enforce", boolean);
        let tokens = credentials::tokens(file);
        let issuers = credentials::issuers(file, directory, read);
        let names = Names { tokens: tokens.as_ref().ok(), issuers: issuers.as_deref().ok() };
        let revoked = credentials::revoked(file, &names);
        let rules = rules::read(file, &names);
        let limits = limits::read(file, &names);
        let (tokens, issuers) = (tokens?, issuers?);
        Ok(Self {
            is_enforced: is_enforced?.unwrap_or(true),
            sha256: [0; 32],
            rules: rules?,
            tokens,
            limits: limits?,
            revoked: revoked?,
            files: issuers.iter().map(|issuer| issuer.path.clone()).collect(),
            issuers,
        })
    }
}

/// Reads a file, but for what comes after one byte too many.
fn read_file(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Checks what was read of a file. Errors have the name that is `shown`.
fn check_file(read: io::Result<Vec<u8>>, shown: &str, bytes_max: u64) -> Result<Vec<u8>, String> {
    match read {
        Ok(bytes) if bytes.len() as u64 > bytes_max => Err(too_long(shown, bytes_max)),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(format!("cannot read {shown}: {error}")),
    }
}

fn too_long(shown: &str, bytes_max: u64) -> String {
    format!("{shown} is longer than {} MiB", bytes_max >> 20)
}

/// Reads a string that is not the text of a token, which an error must not repeat.
fn text(value: Value<'_>) -> Result<String, String> {
    let text = string(value)?;
    if text.starts_with(TOKEN_PREFIX) {
        return Err("must not be the text of a token: keep it out of this file".to_owned());
    }
    Ok(text)
}

/// Reads one value or a list of a bounded length, which must be there and not be empty.
fn list<T>(
    section: &mut Section<'_>,
    key: &'static str,
    read: impl Fn(Value<'_>) -> Result<T, String>,
) -> Result<Vec<T>, Invalid> {
    let values = section.required_one_or_more(key, read)?;
    match values.len() {
        ..=LIST_MAX => Ok(values),
        count => Err(section.error(key, format!("has {count} values, at most {LIST_MAX}"))),
    }
}

/// Reads the tables of an array of a bounded length.
fn tables<T>(
    file: &mut Section<'_>,
    key: &'static str,
    read: impl Fn(&mut Section<'_>) -> Result<T, Invalid>,
) -> Result<Vec<T>, Invalid> {
    let tables = file.tables(key, read)?;
    match tables.len() {
        ..=RULES_MAX => tables.into_iter().collect(),
        count => Err(file.error(key, format!("has {count} tables, at most {RULES_MAX}"))),
    }
}
