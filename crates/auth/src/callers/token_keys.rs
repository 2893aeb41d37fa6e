//! The keys of callers' tokens, as `[auth.jwt]` names them and their files.

use std::path::Path;

use waypost_config::{
    Invalid, Section,
    value::{Value, invalid, string},
};

use crate::jwt::{
    algorithm::{Algorithm, KeyType},
    jwk::{self, SetKind},
    key::{Key, Material},
    keys::Keys,
    pem::public_key,
};

/// Reads the keys of `[auth.jwt]`: those of the set, then the single ones. Never none.
pub(super) fn read(section: &mut Section<'_>, directory: &Path) -> Result<Keys, Invalid> {
    if !section.has("jwks") && !section.has("keys") {
        return Err(section.error("jwks", "is missing, and so is keys: one of them is required"));
    }
    let set = section.file("jwks", directory);
    let set = set.and_then(|json| json.map_or(Ok(Vec::new()), |json| read_set(&json, section)));
    let single = section.tables("keys", |section| {
        (section.path().to_owned(), section.offset(), read_key(section, directory))
    });
    let mut outcome = set.as_ref().map(|_| ()).map_err(|invalid| *invalid);
    let mut keys = set.unwrap_or_default();
    for (path, offset, key) in single? {
        let Ok(key) = key else {
            outcome = Err(Invalid);
            continue;
        };
        if keys.iter().any(|other| key.conflicts(other)) {
            let message = "is that of another key".to_owned();
            outcome = Err(section.error_at(offset, format!("{path}.kid"), message));
        }
        keys.push(key);
    }
    outcome?;
    let key = if section.has("keys") { "keys" } else { "jwks" };
    Keys::new(keys).map_err(|error| section.error(key, error))
}

fn read_set(json: &[u8], section: &mut Section<'_>) -> Result<Vec<Key>, Invalid> {
    jwk::read_set(json, SetKind::Any).map_err(|errors| {
        for error in errors {
            section.error("jwks", error);
        }
        Invalid
    })
}

/// Reads one of `auth.jwt.keys`.
fn read_key(section: &mut Section<'_>, directory: &Path) -> Result<Key, Invalid> {
    let kid = section.read("kid", string);
    let Ok(algorithm) = section.required("alg", algorithm) else {
        // Each is a known key; the algorithm would decide which one is needed.
        let _ = (section.read("secret_file", string), section.read("public_key_file", string));
        return Err(Invalid);
    };
    let (wanted, other) = match algorithm.key_type() {
        KeyType::Secret => ("secret_file", "public_key_file"),
        _ => ("public_key_file", "secret_file"),
    };
    let unused = section
        .read(other, |_| Err::<(), _>(format!("is not for {algorithm}, which needs {wanted}")));
    let Some(bytes) = section.file(wanted, directory)? else {
        return Err(section.error(wanted, format!("is missing, which {algorithm} needs")));
    };
    let material = match algorithm.key_type() {
        KeyType::Secret => secret_of_file(&bytes, algorithm),
        _ => public_key(&bytes, algorithm),
    };
    let material = material.map_err(|reason| section.error(wanted, reason))?;
    unused?;
    Ok(Key { kid: kid?, algorithms: vec![algorithm], material })
}

fn algorithm(value: Value<'_>) -> Result<Algorithm, String> {
    let name = string(value)?;
    name.parse().map_err(|()| invalid(&name, &"is not a known algorithm"))
}

/// Reads a secret: the whole file, but for a newline at its end, which editors add.
fn secret_of_file(bytes: &[u8], algorithm: Algorithm) -> Result<Material, &'static str> {
    let secret = match str::from_utf8(bytes) {
        Ok(text) => {
            text.strip_suffix('\n').map_or(text, |text| text.trim_end_matches('\r')).as_bytes()
        }
        Err(_) => bytes,
    };
    if secret.starts_with(b"-----BEGIN ") {
        return Err("is a PEM, not a secret");
    }
    Material::secret(secret, algorithm)
}
