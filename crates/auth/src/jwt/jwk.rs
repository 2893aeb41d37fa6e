//! Sets of JSON Web Keys (RFC 7517; RFC 7518, section 6; RFC 8037, section 2). Pure.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::{
    algorithm::{Algorithm, KeyType},
    key::{Key, Material, TOO_SHORT, secret_bytes_min},
};

/// A kind of sets: the keys that one may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetKind {
    /// Public keys and secrets.
    Any,
    /// Public keys alone; a secret or a private key is an error.
    Public,
}

/// A key of a set.
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
    /// The private part of a key; its value is not kept.
    d: Option<IgnoredAny>,
}

/// The reason why a key of a set is not used.
enum UnusableKey {
    /// The key has another purpose, or an unknown type: a set may contain such keys.
    OtherPurpose,
    Invalid(&'static str),
}

/// Reads the keys of a set that are for signatures. Returns all errors; none has a part of a key.
pub(crate) fn read_set(json: &[u8], kind: SetKind) -> Result<Vec<Key>, Vec<String>> {
    let set: Option<Value> = serde_json::from_slice(json).ok();
    let Some(Value::Array(set)) = set.and_then(|mut set| Some(set.get_mut("keys")?.take())) else {
        return Err(vec!["is not a JSON object with a list of keys".to_owned()]);
    };
    let (mut keys, mut errors) = (Vec::<Key>::new(), Vec::new());
    for (index, value) in set.into_iter().enumerate() {
        let read = serde_json::from_value(value)
            .map_err(|_| UnusableKey::Invalid("is not a JSON Web Key"));
        match read.and_then(|jwk: Jwk| jwk.key(kind)) {
            Ok(key) if keys.iter().any(|other| key.conflicts(other)) => {
                errors.push(format!("keys[{index}]: its kid is that of another key"));
            }
            Ok(key) => keys.push(key),
            Err(UnusableKey::OtherPurpose) => {}
            Err(UnusableKey::Invalid(reason)) => errors.push(format!("keys[{index}]: {reason}")),
        }
    }
    if errors.is_empty() { Ok(keys) } else { Err(errors) }
}

impl Jwk {
    fn key(self, kind: SetKind) -> Result<Key, UnusableKey> {
        if kind == SetKind::Public {
            self.require_public()?;
        }
        let signs = self.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
            && self.key_ops.as_ref().is_none_or(|all| all.iter().any(|one| one == "verify"));
        if !signs {
            return Err(UnusableKey::OtherPurpose);
        }
        let (material, mut algorithms) = self.material()?;
        if let Some(alg) = &self.alg {
            let alg: Algorithm = alg.parse().map_err(|()| UnusableKey::OtherPurpose)?;
            if !algorithms.contains(&alg) {
                return Err(UnusableKey::Invalid("its alg does not fit its type"));
            }
            algorithms = vec![alg];
        }
        Ok(Key { kid: self.kid, algorithms, material })
    }

    /// Rejects secrets, whatever their purpose: the file is not kept as one.
    fn require_public(&self) -> Result<(), UnusableKey> {
        if self.kty == "oct" || self.k.is_some() {
            return Err(UnusableKey::Invalid(
                "is a symmetric key, and only public keys may be here",
            ));
        }
        if self.d.is_some() {
            let reason = "is a private key, which only the issuer should have";
            return Err(UnusableKey::Invalid(reason));
        }
        Ok(())
    }

    /// Returns the key, and all algorithms of its type.
    fn material(&self) -> Result<(Material, Vec<Algorithm>), UnusableKey> {
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => {
                let key = Material::rsa(&bytes(self.n.as_ref())?, &bytes(self.e.as_ref())?);
                key.map(|key| (key, KeyType::Rsa.algorithms())).map_err(UnusableKey::Invalid)
            }
            ("EC", Some("P-256")) => self.elliptic(32, KeyType::P256),
            ("EC", Some("P-384")) => self.elliptic(48, KeyType::P384),
            ("OKP", Some("Ed25519")) => {
                let key = Material::edwards(&bytes(self.x.as_ref())?);
                key.map(|key| (key, KeyType::Ed25519.algorithms())).map_err(UnusableKey::Invalid)
            }
            ("oct", _) => {
                let secret = bytes(self.k.as_ref())?;
                let mut all = KeyType::Secret.algorithms();
                all.retain(|algorithm| secret.len() >= secret_bytes_min(*algorithm));
                let first = all.first().ok_or(UnusableKey::Invalid(TOO_SHORT))?;
                let key = Material::secret(&secret, *first).map_err(UnusableKey::Invalid)?;
                Ok((key, all))
            }
            _ => Err(UnusableKey::OtherPurpose),
        }
    }

    fn elliptic(
        &self,
        length: usize,
        key_type: KeyType,
    ) -> Result<(Material, Vec<Algorithm>), UnusableKey> {
        let (x, y) = (bytes(self.x.as_ref())?, bytes(self.y.as_ref())?);
        if x.len() != length || y.len() != length {
            return Err(UnusableKey::Invalid("its point has another length than its curve"));
        }
        let point = [&[0x04], x.as_slice(), y.as_slice()].concat();
        let key = Material::elliptic(&point, key_type);
        let key = key.ok_or(UnusableKey::Invalid("its point is not on its curve"))?;
        Ok((key, key_type.algorithms()))
    }
}

/// Decodes a required member, which is base64url.
fn bytes(member: Option<&String>) -> Result<Vec<u8>, UnusableKey> {
    let text = member.ok_or(UnusableKey::Invalid("a member that its kty needs is missing"))?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| UnusableKey::Invalid("a member is not base64url"))
}
