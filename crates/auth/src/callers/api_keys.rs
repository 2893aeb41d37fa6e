//! API keys, known by their digests alone.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    path::Path,
    time::SystemTime,
};

use http::{HeaderMap, HeaderName, header::AUTHORIZATION};
use sha2::{Digest, Sha256};
use waypost_config::{
    Invalid, Section,
    value::{Value, invalid, nonempty_string, string, utc_time},
};

use super::{
    identity::{AuthMethod, Identity},
    identity_headers::is_identity_header,
};
use crate::{Unauthorized, unauthorized::CREDENTIAL_BYTES_MAX};

/// The valid API keys, and the header in which callers send them.
pub(super) struct ApiKeys {
    header: HeaderName,
    /// By SHA-256. The time of a lookup may depend on a digest's first bytes, which reveals no key:
    /// a caller finds another key with these bytes only by trying.
    keys: Digests,
}

struct ApiKey {
    id: String,
    scopes: BTreeSet<String>,
    /// `None`: the key never expires.
    expires: Option<SystemTime>,
}

impl ApiKeys {
    /// Reads `[auth.api_keys]` and its file.
    pub(super) fn read(section: &mut Section<'_>, directory: &Path) -> Result<Self, Invalid> {
        let header = section.read("header", header_name);
        let keys = section.toml_file("file", directory, read_file);
        let Some(keys) = keys? else { return Err(section.error("file", "is missing")) };
        let header = header?.unwrap_or(HeaderName::from_static("x-api-key"));
        Ok(Self { header, keys })
    }

    pub(super) fn header(&self) -> &HeaderName {
        &self.header
    }

    /// Returns the key that the caller sent.
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

    /// Returns the identity of a key's owner.
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
            method: AuthMethod::ApiKey,
        })
    }
}

type Digests = HashMap<[u8; 32], ApiKey>;

fn read_file(file: &mut Section<'_>) -> Result<Digests, Invalid> {
    if !file.has("keys") {
        return Err(file.error("keys", "is missing"));
    }
    let read = file.tables("keys", |section| {
        (section.path().to_owned(), section.offset(), read_key(section))
    })?;
    let (mut keys, mut ids, mut outcome) = (HashMap::new(), HashSet::new(), Ok(()));
    for (path, offset, key) in read {
        let Ok((digest, key)) = key else {
            outcome = Err(Invalid);
            continue;
        };
        if !ids.insert(key.id.clone()) {
            let message = format!("'{}' is the id of another key", key.id.escape_debug());
            outcome = Err(file.error_at(offset, format!("{path}.id"), message));
        }
        if keys.insert(digest, key).is_some() {
            let message = "is the digest of another key".to_owned();
            outcome = Err(file.error_at(offset, format!("{path}.sha256"), message));
        }
    }
    outcome.map(|()| keys)
}

fn read_key(section: &mut Section<'_>) -> Result<([u8; 32], ApiKey), Invalid> {
    let id = section.required("id", nonempty_string);
    let digest = section.required("sha256", digest);
    let scopes = section.list("scopes", string);
    let expires = section.read("expires", utc_time);
    Ok((
        digest?,
        ApiKey {
            id: id?,
            scopes: scopes?.unwrap_or_default().into_iter().collect(),
            expires: expires?,
        },
    ))
}

fn header_name(value: Value<'_>) -> Result<HeaderName, String> {
    let text = string(value)?;
    let name = text.parse().ok().filter(|name| name != AUTHORIZATION && !is_identity_header(name));
    name.ok_or_else(|| invalid(&text, &"must be the name of a header that can have an API key"))
}

/// Reads a digest from its 64 hexadecimal digits. The value is not repeated in the message: it may
/// be the key itself.
fn digest(value: Value<'_>) -> Result<[u8; 32], String> {
    let text = string(value)?;
    decoded(&text).ok_or_else(|| "must be the 64 hex digits of a SHA-256".to_owned())
}

fn decoded(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (index, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    // The digest of nothing would make an empty header a valid key.
    (digest != <[u8; 32]>::from(Sha256::digest([]))).then_some(digest)
}
