//! API keys: who has which, by their digests. The keys themselves are nowhere.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    path::Path,
    time::SystemTime,
};

use http::{HeaderMap, HeaderName, header::AUTHORIZATION};
use sha2::{Digest, Sha256};
use toml::{Table, Value};

use super::{
    Identity, Method, Unauthorized, identity_headers::is_identity_header, section::Section,
    tokens::CREDENTIAL_BYTES_MAX,
};

/// The API keys that are known.
pub(super) struct ApiKeys {
    header: HeaderName,
    /// By SHA-256. That a look-up takes longer the more of a digest is right tells nothing: who wants a key
    /// with a digest that begins like another one has to find it by trying, and learns nothing of that
    /// other key by it.
    keys: HashMap<[u8; 32], ApiKey>,
}

struct ApiKey {
    id: String,
    scopes: BTreeSet<String>,
    /// `None`: never.
    expires: Option<SystemTime>,
}

impl ApiKeys {
    /// Reads `[auth.api_keys]` and its file. `None`: there is a mistake.
    pub(super) fn load(table: Table, base: &Path, mistakes: &mut Vec<String>) -> Option<Self> {
        let mut section = Section::new(table, "auth.api_keys.", mistakes);
        let header = section.take::<String>("header").unwrap_or_else(|| "x-api-key".to_owned());
        let header: Option<HeaderName> =
            header.parse().ok().filter(|name| name != AUTHORIZATION && !is_identity_header(name));
        if header.is_none() {
            section.mistake("header", "is no name of a header that an API key can be in");
        }
        if !section.has("file") {
            section.mistake("file", "is missing");
        }
        let text = section.file("file", base);
        section.finish();
        let keys = read_file(&text?, mistakes)?;
        Some(Self { header: header?, keys })
    }

    pub(super) fn header(&self) -> &HeaderName {
        &self.header
    }

    /// The key that the caller gives.
    pub(super) fn given<'a>(
        &self,
        headers: &'a HeaderMap,
    ) -> Result<Option<&'a [u8]>, Unauthorized> {
        let mut values = headers.get_all(&self.header).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(key), None) => Ok(Some(key.as_bytes())),
            (Some(_), Some(_)) => Err(Unauthorized::GivenTwice),
        }
    }

    /// Whose key it is.
    pub(super) fn identify(&self, key: &[u8], now: SystemTime) -> Result<Identity, Unauthorized> {
        if key.len() > CREDENTIAL_BYTES_MAX {
            return Err(Unauthorized::TooLong);
        }
        let digest: [u8; 32] = Sha256::digest(key).into();
        let found = self.keys.get(&digest).ok_or(Unauthorized::UnknownApiKey)?;
        if found.expires.is_some_and(|expires| now >= expires) {
            return Err(Unauthorized::ApiKeyExpired);
        }
        Ok(Identity {
            subject: found.id.clone(),
            scopes: found.scopes.clone(),
            method: Method::ApiKey,
        })
    }
}

fn read_file(text: &[u8], mistakes: &mut Vec<String>) -> Option<HashMap<[u8; 32], ApiKey>> {
    const PLACE: &str = "auth.api_keys.file: ";
    let table: Result<Table, toml::de::Error> = toml::from_slice(text);
    let table = table.map_err(|error| mistakes.push(format!("{PLACE}{}", error.message()))).ok()?;
    let mut section = Section::new(table, PLACE, mistakes);
    let tables: Vec<Table> = section.require("keys").unwrap_or_default();
    section.finish();
    let (mut keys, mut ids) = (HashMap::new(), HashSet::new());
    for (index, table) in tables.into_iter().enumerate() {
        let mut section = Section::new(table, format!("{PLACE}keys[{index}]."), mistakes);
        let read = read_key(&mut section);
        let Some((digest, key)) = read else {
            section.finish();
            continue;
        };
        if !ids.insert(key.id.clone()) {
            section.mistake("id", format!("'{}' is there twice", key.id));
        }
        if keys.insert(digest, key).is_some() {
            section.mistake("sha256", "is there twice");
        }
        section.finish();
    }
    Some(keys)
}

fn read_key(section: &mut Section<'_>) -> Option<([u8; 32], ApiKey)> {
    let id = section.require::<String>("id").filter(|id| {
        let named = !id.is_empty();
        if !named {
            section.mistake("id", "is empty");
        }
        named
    });
    let digest = section.require::<String>("sha256").and_then(|hex| {
        let digest = digest(&hex);
        if digest.is_none() {
            section.mistake("sha256", "must be the 64 hex digits of a SHA-256");
        }
        digest
    });
    let scopes = section.take::<BTreeSet<String>>("scopes").unwrap_or_default();
    let expires = match section.take::<Value>("expires") {
        None => None,
        Some(Value::String(text)) => Some(text),
        Some(value) => Some(value.to_string()),
    };
    let expires = match expires.map(|text| humantime::parse_rfc3339(&text)).transpose() {
        Ok(expires) => expires,
        Err(_) => {
            section.mistake("expires", "must be a time in UTC, such as 2027-01-01T00:00:00Z");
            None
        }
    };
    Some((digest?, ApiKey { id: id?, scopes, expires }))
}

/// The digest that 64 hex digits are.
fn digest(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (index, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    // The digest of nothing would be the key of who sends an empty header.
    (digest != <[u8; 32]>::from(Sha256::digest([]))).then_some(digest)
}
