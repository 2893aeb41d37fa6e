//! The keys that verify tokens.
//! Invariant: a key verifies only algorithms of its own type. A public key that is used as a secret
//! would be a secret that everyone knows.

use std::path::Path;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, crypto,
    jwk::{AlgorithmParameters, Jwk as PublicKey},
};
use serde::Deserialize;
use serde_json::Value;
use waypost_config::{
    Invalid, Section,
    value::{self, invalid, string},
};

/// The greatest number of keys: a token without a key id is tried with each.
const KEYS_MAX: usize = 64;

/// The sizes of RSA keys: shorter ones can be factored, longer ones cost too much time.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// A key and its algorithms.
pub(crate) struct Key {
    pub(crate) kid: Option<String>,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) key: DecodingKey,
}

/// A key of a set (RFC 7517, section 4; RFC 7518, section 6; RFC 8037, section 2).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
}

/// The reason why a key of a set is not used.
enum UnusableKey {
    /// The key has another purpose, or an unknown type: a set may contain such keys.
    OtherPurpose,
    Invalid(&'static str),
}

/// Reads the keys of `[auth.jwt]`: those of the set, then the single ones. Never none.
pub(crate) fn read(section: &mut Section<'_>, directory: &Path) -> Result<Vec<Key>, Invalid> {
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
        if is_taken(&key, &keys) {
            let message = "is that of another key".to_owned();
            outcome = Err(section.error_at(offset, format!("{path}.kid"), message));
        }
        keys.push(key);
    }
    outcome?;
    let key = if section.has("keys") { "keys" } else { "jwks" };
    match keys.len() {
        0 => Err(section.error(key, "has no key for signatures")),
        1..=KEYS_MAX => Ok(keys),
        count => Err(section.error(key, format!("there are {count} keys, at most {KEYS_MAX}"))),
    }
}

/// Returns whether a token could name two keys. Keys for different algorithms may have equal ids
/// (RFC 7517, section 4.5).
fn is_taken(key: &Key, keys: &[Key]) -> bool {
    key.kid.is_some()
        && keys.iter().any(|other| {
            let shared = other.algorithms.iter().any(|each| key.algorithms.contains(each));
            other.kid == key.kid && shared
        })
}

fn read_set(json: &[u8], section: &mut Section<'_>) -> Result<Vec<Key>, Invalid> {
    let set: Option<Value> = serde_json::from_slice(json).ok();
    let Some(Value::Array(set)) = set.and_then(|mut set| Some(set.get_mut("keys")?.take())) else {
        return Err(section.error("jwks", "is not a JSON object with a list of keys"));
    };
    let (mut keys, mut outcome) = (Vec::new(), Ok(()));
    for (index, value) in set.into_iter().enumerate() {
        let read = serde_json::from_value(value)
            .map_err(|_| UnusableKey::Invalid("is not a JSON Web Key"));
        match read.and_then(Jwk::key) {
            Ok(key) if is_taken(&key, &keys) => {
                let message = format!("keys[{index}]: its kid is that of another key");
                outcome = Err(section.error("jwks", message));
            }
            Ok(key) => keys.push(key),
            Err(UnusableKey::OtherPurpose) => {}
            Err(UnusableKey::Invalid(reason)) => {
                outcome = Err(section.error("jwks", format!("keys[{index}]: {reason}")));
            }
        }
    }
    outcome.map(|()| keys)
}

/// Reads one of `auth.jwt.keys`.
fn read_key(section: &mut Section<'_>, directory: &Path) -> Result<Key, Invalid> {
    let kid = section.read("kid", string);
    let Ok(algorithm) = section.required("alg", algorithm) else {
        // Each is a known key; the algorithm would decide which one is needed.
        let _ = (section.read("secret_file", string), section.read("public_key_file", string));
        return Err(Invalid);
    };
    let (wanted, other) = match algorithm.family() {
        AlgorithmFamily::Hmac => ("secret_file", "public_key_file"),
        _ => ("public_key_file", "secret_file"),
    };
    let unused = section
        .read(other, |_| Err::<(), _>(format!("is not for {algorithm:?}, which needs {wanted}")));
    let Some(bytes) = section.file(wanted, directory)? else {
        return Err(section.error(wanted, format!("is missing, which {algorithm:?} needs")));
    };
    let key = match algorithm.family() {
        AlgorithmFamily::Hmac => secret_of_file(&bytes, algorithm),
        family => public_key(&bytes, family, algorithm),
    };
    let key = key.map_err(|reason| section.error(wanted, reason))?;
    unused?;
    Ok(Key { kid: kid?, algorithms: vec![algorithm], key })
}

fn algorithm(value: value::Value<'_>) -> Result<Algorithm, String> {
    let name = string(value)?;
    name.parse().map_err(|_| invalid(&name, &"is not a known algorithm"))
}

impl Jwk {
    fn key(self) -> Result<Key, UnusableKey> {
        let signs = self.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
            && self.key_ops.as_ref().is_none_or(|all| all.iter().any(|one| one == "verify"));
        if !signs {
            return Err(UnusableKey::OtherPurpose);
        }
        let (key, mut algorithms) = self.material()?;
        if let Some(alg) = &self.alg {
            let alg: Algorithm = alg.parse().map_err(|_| UnusableKey::OtherPurpose)?;
            if !algorithms.contains(&alg) {
                return Err(UnusableKey::Invalid("its alg does not fit its type"));
            }
            algorithms = vec![alg];
        }
        Ok(Key { kid: self.kid, algorithms, key })
    }

    /// Returns the key, and all algorithms of its type.
    fn material(&self) -> Result<(DecodingKey, Vec<Algorithm>), UnusableKey> {
        let curve = self.crv.as_deref();
        match (self.kty.as_str(), curve) {
            ("RSA", _) => {
                let key = rsa(&bytes(self.n.as_ref())?, &bytes(self.e.as_ref())?);
                let all = AlgorithmFamily::Rsa.algorithms().to_vec();
                key.map(|key| (key, all)).map_err(UnusableKey::Invalid)
            }
            ("EC", Some("P-256")) => self.elliptic(32, Algorithm::ES256),
            ("EC", Some("P-384")) => self.elliptic(48, Algorithm::ES384),
            ("OKP", Some("Ed25519")) => {
                let key = edwards(&bytes(self.x.as_ref())?).map_err(UnusableKey::Invalid)?;
                Ok((key, vec![Algorithm::EdDSA]))
            }
            ("oct", _) => {
                let secret = bytes(self.k.as_ref())?;
                let mut all = AlgorithmFamily::Hmac.algorithms().to_vec();
                all.retain(|algorithm| secret.len() >= secret_bytes_min(*algorithm));
                if all.is_empty() {
                    return Err(UnusableKey::Invalid(TOO_SHORT));
                }
                Ok((DecodingKey::from_secret(&secret), all))
            }
            _ => Err(UnusableKey::OtherPurpose),
        }
    }

    fn elliptic(
        &self,
        length: usize,
        algorithm: Algorithm,
    ) -> Result<(DecodingKey, Vec<Algorithm>), UnusableKey> {
        let (x, y) = (bytes(self.x.as_ref())?, bytes(self.y.as_ref())?);
        if x.len() != length || y.len() != length {
            return Err(UnusableKey::Invalid("its point has another length than its curve"));
        }
        let point = [&[0x04], x.as_slice(), y.as_slice()].concat();
        let key = DecodingKey::from_ec_der(&point);
        match is_usable(&key, algorithm) {
            true => Ok((key, vec![algorithm])),
            false => Err(UnusableKey::Invalid("its point is not on its curve")),
        }
    }
}

/// Decodes a required member, which is base64url.
fn bytes(member: Option<&String>) -> Result<Vec<u8>, UnusableKey> {
    let text = member.ok_or(UnusableKey::Invalid("a member that its kty needs is missing"))?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| UnusableKey::Invalid("a member is not base64url"))
}

const TOO_SHORT: &str = "is shorter than the hash of its algorithm, and could be guessed";

/// Returns the least length of a secret: that of the hash (RFC 7518, section 3.2).
fn secret_bytes_min(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::HS256 => 32,
        Algorithm::HS384 => 48,
        _ => 64,
    }
}

/// Reads a secret: the whole file, but for a newline at its end, which editors add.
fn secret_of_file(bytes: &[u8], algorithm: Algorithm) -> Result<DecodingKey, &'static str> {
    let secret = match str::from_utf8(bytes) {
        Ok(text) => {
            text.strip_suffix('\n').map_or(text, |text| text.trim_end_matches('\r')).as_bytes()
        }
        Err(_) => bytes,
    };
    if secret.starts_with(b"-----BEGIN ") {
        return Err("is a PEM, not a secret");
    }
    if secret.len() < secret_bytes_min(algorithm) {
        return Err(TOO_SHORT);
    }
    Ok(DecodingKey::from_secret(secret))
}

/// Reads the public key of a PEM.
fn public_key(
    pem: &[u8],
    family: AlgorithmFamily,
    algorithm: Algorithm,
) -> Result<DecodingKey, &'static str> {
    let text = str::from_utf8(pem).map_err(|_| "is not a PEM")?;
    if text.contains("PRIVATE KEY-----") {
        return Err("is a private key, which only the issuer should have");
    }
    if !text.contains("PUBLIC KEY-----") {
        return Err("is not a PEM of a public key");
    }
    let other = |_| "is a key of another type than its alg, or broken";
    match family {
        AlgorithmFamily::Rsa => {
            let key = DecodingKey::from_rsa_pem(pem).map_err(other)?;
            let key = PublicKey::from_decoding_key(&key, None).map_err(other)?;
            let AlgorithmParameters::RSA(key) = key.algorithm else {
                return Err("is not an RSA key");
            };
            let decoded = |text| URL_SAFE_NO_PAD.decode(text).map_err(|_| "is broken");
            rsa(&decoded(key.n)?, &decoded(key.e)?)
        }
        AlgorithmFamily::Ec => {
            let key = DecodingKey::from_ec_pem(pem).map_err(other)?;
            is_usable(&key, algorithm)
                .then_some(key)
                .ok_or("is a key of another curve than its alg")
        }
        AlgorithmFamily::Ed => {
            let key = DecodingKey::from_ed_pem(pem).map_err(other)?;
            edwards(key.try_get_as_bytes().map_err(other)?)
        }
        AlgorithmFamily::Hmac => Err("is not a secret"),
    }
}

/// Builds an RSA key from its big-endian numbers. Checks them here: an invalid key would otherwise
/// reject every signature.
fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<DecodingKey, &'static str> {
    let (modulus, exponent) = (unpadded(modulus), unpadded(exponent));
    let unused = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    if !RSA_BITS.contains(&(modulus.len() * 8 - unused)) {
        return Err("is an RSA key of less than 2048 or more than 4096 bits");
    }
    let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
    let is_small = exponent.len() <= 4 && exponent != [1];
    if !is_odd(modulus) || !is_odd(exponent) || !is_small {
        return Err("is not an RSA key");
    }
    Ok(DecodingKey::from_rsa_raw_components(modulus, exponent))
}

/// Builds an Ed25519 key. A key of another length would panic in a verification, or be cut.
fn edwards(key: &[u8]) -> Result<DecodingKey, &'static str> {
    let read = DecodingKey::from_ed_der(key);
    let usable = key.len() == 32 && is_usable(&read, Algorithm::EdDSA);
    usable.then_some(read).ok_or("is not an Ed25519 key")
}

fn unpadded(mut number: &[u8]) -> &[u8] {
    while let [0, rest @ ..] = number {
        number = rest;
    }
    number
}

/// Returns whether a key can verify signatures, by verifying one that is never valid.
fn is_usable(key: &DecodingKey, algorithm: Algorithm) -> bool {
    crypto::verify("", b"", key, algorithm).is_ok()
}
