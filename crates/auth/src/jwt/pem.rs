//! Public keys in PEM (RFC 7468): SubjectPublicKeyInfo, and RSAPublicKey of PKCS #1. Pure.

use rustls_pki_types::alg_id;

use super::{
    algorithm::{Algorithm, KeyType},
    der::{self, SubjectPublicKey},
    key::Material,
};

/// Reads the public key of a PEM.
pub(crate) fn public_key(pem: &[u8], algorithm: Algorithm) -> Result<Material, &'static str> {
    let text = str::from_utf8(pem).map_err(|_| "is not a PEM")?;
    if text.contains("PRIVATE KEY-----") {
        return Err("is a private key, which only the issuer should have");
    }
    if !text.contains("PUBLIC KEY-----") {
        return Err("is not a PEM of a public key");
    }
    const OTHER: &str = "is a key of another type than its alg, or broken";
    let pem = pem::parse(pem).map_err(|_| OTHER)?;
    let key_type = algorithm.key_type();
    let info = match (pem.tag(), key_type) {
        ("RSA PUBLIC KEY", KeyType::Rsa) => return rsa(pem.contents()).ok_or(OTHER)?,
        ("PUBLIC KEY", _) => der::subject_public_key(pem.contents()).ok_or(OTHER)?,
        _ => return Err(OTHER),
    };
    match (key_type_of(info).ok_or(OTHER)?, key_type) {
        (KeyType::Rsa, KeyType::Rsa) => rsa(info.key).ok_or(OTHER)?,
        (KeyType::Ed25519, KeyType::Ed25519) => Material::edwards(info.key),
        (curve @ (KeyType::P256 | KeyType::P384), KeyType::P256 | KeyType::P384) => {
            Material::elliptic(info.key, key_type)
                .filter(|_| curve == key_type)
                .ok_or("is a key of another curve than its alg")
        }
        _ => Err(OTHER),
    }
}

fn rsa(der: &[u8]) -> Option<Result<Material, &'static str>> {
    der::rsa_numbers(der).map(|numbers| Material::rsa(numbers.modulus, numbers.exponent))
}

fn key_type_of(info: SubjectPublicKey<'_>) -> Option<KeyType> {
    let types = [
        (alg_id::RSA_ENCRYPTION, KeyType::Rsa),
        (alg_id::ECDSA_P256, KeyType::P256),
        (alg_id::ECDSA_P384, KeyType::P384),
        (alg_id::ED25519, KeyType::Ed25519),
    ];
    types.into_iter().find(|(id, _)| id.as_ref() == info.algorithm).map(|(_, key_type)| key_type)
}
