//! Public keys in PEM (RFC 7468): SubjectPublicKeyInfo (RFC 5280, section 4.1), and RSAPublicKey
//! (RFC 8017, appendix A.1.1). Pure.

use x509_parser::{
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
        OID_SIG_ED25519,
    },
    prelude::FromDer,
    public_key::RSAPublicKey,
    x509::{AlgorithmIdentifier, SubjectPublicKeyInfo},
};

use super::{
    algorithm::{Algorithm, KeyType},
    key::Material,
};

const OTHER: &str = "is a key of another type than its alg, or broken";

/// Reads the public key of a PEM.
pub(crate) fn public_key(pem: &[u8], algorithm: Algorithm) -> Result<Material, &'static str> {
    let text = str::from_utf8(pem).map_err(|_| "is not a PEM")?;
    if text.contains("PRIVATE KEY-----") {
        return Err("is a private key, which only the issuer should have");
    }
    if !text.contains("PUBLIC KEY-----") {
        return Err("is not a PEM of a public key");
    }
    let pem = pem::parse(pem).map_err(|_| OTHER)?;
    match (pem.tag(), algorithm.key_type()) {
        ("RSA PUBLIC KEY", KeyType::Rsa) => rsa(pem.contents()),
        ("PUBLIC KEY", wanted) => subject_public_key(pem.contents(), wanted),
        _ => Err(OTHER),
    }
}

fn subject_public_key(der: &[u8], wanted: KeyType) -> Result<Material, &'static str> {
    let (rest, info) = SubjectPublicKeyInfo::from_der(der).map_err(|_| OTHER)?;
    if !rest.is_empty() || info.subject_public_key.unused_bits != 0 {
        return Err(OTHER);
    }
    let key = &info.subject_public_key.data;
    match (key_type(&info.algorithm).ok_or(OTHER)?, wanted) {
        (KeyType::Rsa, KeyType::Rsa) => rsa(key),
        (KeyType::Ed25519, KeyType::Ed25519) => Material::edwards(key),
        (curve @ (KeyType::P256 | KeyType::P384), KeyType::P256 | KeyType::P384) => {
            Material::elliptic(key, wanted)
                .filter(|_| curve == wanted)
                .ok_or("is a key of another curve than its alg")
        }
        _ => Err(OTHER),
    }
}

fn rsa(der: &[u8]) -> Result<Material, &'static str> {
    let (rest, key) = RSAPublicKey::from_der(der).map_err(|_| OTHER)?;
    let is_positive = |number: &[u8]| number.first().is_some_and(|first| *first < 0x80);
    if !rest.is_empty() || !is_positive(key.modulus) || !is_positive(key.exponent) {
        return Err(OTHER);
    }
    Material::rsa(key.modulus, key.exponent)
}

fn key_type(identifier: &AlgorithmIdentifier<'_>) -> Option<KeyType> {
    if identifier.algorithm == OID_PKCS1_RSAENCRYPTION {
        return Some(KeyType::Rsa);
    }
    if identifier.algorithm == OID_SIG_ED25519 {
        return Some(KeyType::Ed25519);
    }
    if identifier.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
        return None;
    }
    let curve = identifier.parameters.as_ref()?.as_oid().ok()?;
    [(OID_EC_P256, KeyType::P256), (OID_NIST_EC_P384, KeyType::P384)]
        .into_iter()
        .find_map(|(id, key_type)| (id == curve).then_some(key_type))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ED25519_PUBLIC, P256_PUBLIC, P384_PUBLIC, RSA_PUBLIC, SigningKey};

    const KEYS: [(&str, Algorithm); 4] = [
        (RSA_PUBLIC, Algorithm::Ps384),
        (P256_PUBLIC, Algorithm::Es256),
        (P384_PUBLIC, Algorithm::Es384),
        (ED25519_PUBLIC, Algorithm::EdDsa),
    ];

    fn encoded(tag: &str, der: &[u8]) -> String {
        pem::encode(&pem::Pem::new(tag, der))
    }

    #[test]
    fn public_key_is_read_for_its_own_algorithms_alone() {
        for (pem, own) in KEYS {
            for (_, algorithm) in KEYS {
                let read = public_key(pem.as_bytes(), algorithm);
                assert_eq!(read.is_ok(), algorithm == own, "{pem} {algorithm}");
            }
            assert!(public_key(pem.as_bytes(), Algorithm::Hs256).is_err());
        }
    }

    #[test]
    fn rsa_key_of_pkcs1_verifies_what_the_key_signed() {
        let info = pem::parse(RSA_PUBLIC).expect("a PEM").into_contents();
        let (_, info) = SubjectPublicKeyInfo::from_der(&info).expect("a key");
        let pem = encoded("RSA PUBLIC KEY", &info.subject_public_key.data);
        let key = public_key(pem.as_bytes(), Algorithm::Rs256).expect("it is read");
        let signature = SigningKey::rsa().sign("RS256", b"message");
        assert!(key.verifies(Algorithm::Rs256, b"message", &signature));
        assert!(!key.verifies(Algorithm::Rs256, b"massage", &signature));
        assert!(public_key(pem.as_bytes(), Algorithm::Es256).is_err());
    }

    #[test]
    fn broken_public_key_is_rejected() {
        let mut random = fastrand::Rng::with_seed(7);
        for (pem, algorithm) in KEYS {
            let der = pem::parse(pem).expect("a PEM").into_contents();
            for end in 0..der.len() {
                let cut = encoded("PUBLIC KEY", &der[..end]);
                assert!(public_key(cut.as_bytes(), algorithm).is_err(), "{algorithm} cut at {end}");
            }
            let longer = encoded("PUBLIC KEY", &[der.as_slice(), &[0]].concat());
            assert!(public_key(longer.as_bytes(), algorithm).is_err(), "{algorithm}");
            for _ in 0..500 {
                let mut changed = der.clone();
                changed[random.usize(0..der.len().min(40))] = random.u8(..);
                // Some are keys: the key itself may have changed. No change panics.
                let _ = public_key(encoded("PUBLIC KEY", &changed).as_bytes(), algorithm);
            }
        }
    }
}
