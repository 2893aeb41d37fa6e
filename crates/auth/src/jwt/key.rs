//! A key, and the signatures that it verifies.
//! Invariant: a key verifies only algorithms of its own type. A public key that is used as a secret
//! would be a secret that everyone has.

use std::ops::RangeInclusive;

use ring::{
    agreement::{self, ECDH_P256, ECDH_P384, EphemeralPrivateKey, agree_ephemeral},
    hmac,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
        RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
        RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
        UnparsedPublicKey, VerificationAlgorithm,
    },
};

use super::algorithm::{Algorithm, KeyType};

/// The sizes of RSA keys: shorter ones can be factored, longer ones cost too much time.
const RSA_BITS: RangeInclusive<usize> = 2048..=4096;

pub(crate) const TOO_SHORT: &str =
    "is shorter than the hash of its algorithm, and could be guessed";

/// A key with its id, and the algorithms that it is for. Never printed: it may be a secret.
pub(crate) struct Key {
    pub(crate) kid: Option<String>,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) material: Material,
}

/// The numbers of a key, which are valid for its type.
pub(crate) struct Material(Numbers);

enum Numbers {
    Secret(Vec<u8>),
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    /// Uncompressed (SEC 1, section 2.3.3).
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Key {
    /// Returns whether a token could name either key. Keys for different algorithms may have equal
    /// ids (RFC 7517, section 4.5).
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        let shared = other.algorithms.iter().any(|each| self.algorithms.contains(each));
        self.kid.is_some() && self.kid == other.kid && shared
    }

    /// Returns whether the signature is one of this key, by one of its algorithms.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        self.algorithms.contains(&algorithm)
            && self.material.verifies(algorithm, message, signature)
    }
}

impl Material {
    /// Builds a secret. It is at least as long as the hash of the algorithms that it is for.
    pub(crate) fn secret(secret: &[u8], algorithm: Algorithm) -> Result<Self, &'static str> {
        if secret.len() < secret_bytes_min(algorithm) {
            return Err(TOO_SHORT);
        }
        Ok(Self(Numbers::Secret(secret.to_vec())))
    }

    /// Builds an RSA key from its big-endian numbers. Checks them here: an invalid key would
    /// otherwise reject every signature.
    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, &'static str> {
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
        let (n, e) = (modulus.to_vec(), exponent.to_vec());
        Ok(Self(Numbers::Rsa(RsaPublicKeyComponents { n, e })))
    }

    /// Builds the key of a curve of NIST from its uncompressed point; `None` if that is not on the
    /// curve, or if the type is another one.
    pub(super) fn elliptic(point: &[u8], key_type: KeyType) -> Option<Self> {
        let (curve, numbers) = match key_type {
            KeyType::P256 => (&ECDH_P256, Numbers::P256(point.to_vec())),
            KeyType::P384 => (&ECDH_P384, Numbers::P384(point.to_vec())),
            _ => return None,
        };
        is_on_curve(point, curve).then_some(Self(numbers))
    }

    /// Builds an Ed25519 key. Bytes that are no point of the curve verify no signature.
    pub(super) fn edwards(key: &[u8]) -> Result<Self, &'static str> {
        match key.len() {
            32 => Ok(Self(Numbers::Ed25519(key.to_vec()))),
            _ => Err("is not an Ed25519 key"),
        }
    }

    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let by = |verification: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(verification, key).verify(message, signature).is_ok()
        };
        match (&self.0, algorithm) {
            (Numbers::Secret(secret), algorithm) => hash(algorithm).is_some_and(|hash| {
                hmac::verify(&hmac::Key::new(hash, secret), message, signature).is_ok()
            }),
            (Numbers::Rsa(key), algorithm) => rsa_parameters(algorithm)
                .is_some_and(|parameters| key.verify(parameters, message, signature).is_ok()),
            (Numbers::P256(point), Algorithm::Es256) => by(&ECDSA_P256_SHA256_FIXED, point),
            (Numbers::P384(point), Algorithm::Es384) => by(&ECDSA_P384_SHA384_FIXED, point),
            (Numbers::Ed25519(key), Algorithm::EdDsa) => by(&ED25519, key),
            (Numbers::P256(_) | Numbers::P384(_) | Numbers::Ed25519(_), _) => false,
        }
    }
}

/// Returns the least length of a secret: that of the hash (RFC 7518, section 3.2).
pub(crate) fn secret_bytes_min(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::Hs256 => 32,
        Algorithm::Hs384 => 48,
        _ => 64,
    }
}

fn hash(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    match algorithm {
        Algorithm::Hs256 => Some(hmac::HMAC_SHA256),
        Algorithm::Hs384 => Some(hmac::HMAC_SHA384),
        Algorithm::Hs512 => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        Algorithm::Rs256 => Some(&RSA_PKCS1_2048_8192_SHA256),
        Algorithm::Rs384 => Some(&RSA_PKCS1_2048_8192_SHA384),
        Algorithm::Rs512 => Some(&RSA_PKCS1_2048_8192_SHA512),
        Algorithm::Ps256 => Some(&RSA_PSS_2048_8192_SHA256),
        Algorithm::Ps384 => Some(&RSA_PSS_2048_8192_SHA384),
        Algorithm::Ps512 => Some(&RSA_PSS_2048_8192_SHA512),
        _ => None,
    }
}

/// Returns whether a point is on a curve. ring checks this where it uses a key, and reports it
/// apart from an invalid signature only in a key agreement: one is made with a key that is thrown
/// away.
fn is_on_curve(point: &[u8], curve: &'static agreement::Algorithm) -> bool {
    let peer = agreement::UnparsedPublicKey::new(curve, point);
    EphemeralPrivateKey::generate(curve, &SystemRandom::new())
        .and_then(|ours| agree_ephemeral(ours, &peer, |_| ()))
        .is_ok()
}

fn unpadded(mut number: &[u8]) -> &[u8] {
    while let [0, rest @ ..] = number {
        number = rest;
    }
    number
}
