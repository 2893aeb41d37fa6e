//! Reads the credentials: static tokens (`[[token]]`), issuers (`[issuer.NAME]`) and those that are
//! revoked (`revoked`).
//! Invariant: no digest of a token is in an error.

use std::{collections::HashSet, path::Path};

use waypost_config::{
    Invalid, Section,
    value::{Value, invalid, nonempty_string, string, utc_time},
};
use waypost_core::model::Name;

use super::{KEYS_BYTES_MAX, ReadFile, check_file, names::Names, text};
use crate::policy::{
    issuer::Issuer,
    principal::Principal,
    token::{StaticToken, StaticTokens},
    whole::Revoked,
};

/// The greatest length of the name of a token or issuer, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// The greatest number of issuers: a signed token is tried with each.
pub(super) const ISSUERS_MAX: usize = 16;

/// Names of issuers that would give principals of other credentials.
const RESERVED: [&str; 4] = ["anonymous", "dns", "spiffe", "token"];

pub(super) fn tokens(file: &mut Section<'_>) -> Result<StaticTokens, Invalid> {
    let mut tokens = StaticTokens::default();
    let read = file.tables("token", |section| {
        let name = section.required("name", name);
        let sha256 = section.required("sha256", digest);
        let expires = section.read("expires", utc_time);
        let name = name?;
        let principal = Principal::parse(&format!("token/{name}"));
        let principal = principal.map_err(|error| section.error("name", error.to_string()))?;
        if tokens.principals().contains(&principal) {
            let message = format!("'{name}' is the name of another token");
            return Err(section.error("name", message));
        }
        let token = StaticToken { name: name.as_str().into(), principal, expires: expires? };
        match tokens.insert(sha256?, token) {
            true => Ok(()),
            false => Err(section.error("sha256", "is the digest of another token")),
        }
    })?;
    read.into_iter().collect::<Result<(), _>>().map(|()| tokens)
}

pub(super) fn issuers(
    file: &mut Section<'_>,
    directory: &Path,
    read: ReadFile<'_>,
) -> Result<Vec<Issuer>, Invalid> {
    let mut urls = HashSet::new();
    let issuers = file.named_tables("issuer", |name, section| {
        let issuer = read_issuer(name, section, directory, read)?;
        if !urls.insert(issuer.url.clone()) {
            return Err(section.error("issuer", "is that of another issuer"));
        }
        Ok(issuer)
    })?;
    match issuers.len() {
        ..=ISSUERS_MAX => issuers.into_iter().collect(),
        count => Err(file.error("issuer", format!("has {count} tables, at most {ISSUERS_MAX}"))),
    }
}

fn read_issuer(
    name: &str,
    section: &mut Section<'_>,
    directory: &Path,
    read: ReadFile<'_>,
) -> Result<Issuer, Invalid> {
    let is_valid = Name::parse(name, NAME_BYTES_MAX).is_ok() && !RESERVED.contains(&name);
    let url = section.required("issuer", nonempty_string);
    let audience = section.required("audience", nonempty_string);
    let keys = section.required("keys", nonempty_string);
    if !is_valid {
        let message = format!(
            "must have a name of letters, digits, '.', '_' and '-', and none of {}",
            RESERVED.join(", ")
        );
        let (offset, path) = (section.offset(), section.path().to_owned());
        return Err(section.error_at(offset, path, message));
    }
    let (url, keys) = (url?, keys?);
    let path = directory.join(&keys);
    let bytes = check_file(read(&path), &keys, KEYS_BYTES_MAX);
    let bytes = bytes.map_err(|reason| section.error("keys", reason))?;
    Issuer::new(name, url, audience?, path, &bytes).map_err(|reasons| {
        for reason in reasons {
            let _ = section.error("keys", format!("{keys}: {reason}"));
        }
        Invalid
    })
}

/// One value of `revoked`.
enum Revocation {
    Principal(Principal),
    Certificate([u8; 32]),
}

pub(super) fn revoked(file: &mut Section<'_>, names: &Names<'_>) -> Result<Revoked, Invalid> {
    let revocations = file.list("revoked", |value| {
        match value.as_str().and_then(|text| text.strip_prefix("sha256:")) {
            Some(hex) => digest_of(hex)
                .map(Revocation::Certificate)
                .ok_or_else(|| "must be sha256: and 64 hex digits in lower case".to_owned()),
            None => names.principal(value).map(Revocation::Principal),
        }
    })?;
    let mut revoked = Revoked::default();
    for revocation in revocations.unwrap_or_default() {
        match revocation {
            Revocation::Principal(principal) => _ = revoked.principals.insert(principal),
            Revocation::Certificate(sha256) => _ = revoked.certificates.insert(sha256),
        }
    }
    Ok(revoked)
}

fn name(value: Value<'_>) -> Result<Name, String> {
    let text = text(value)?;
    Name::parse(&text, NAME_BYTES_MAX).map_err(|reason| invalid(&text, &reason))
}

/// Reads a digest. The value is not repeated in the message: it may be the token itself.
fn digest(value: Value<'_>) -> Result<[u8; 32], String> {
    let text = string(value)?;
    digest_of(&text)
        .ok_or_else(|| "must be the 64 hex digits of a SHA-256, in lower case".to_owned())
}

fn digest_of(hex: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut digest = [0; 32];
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    if pairs.len() != digest.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(digest)
}
