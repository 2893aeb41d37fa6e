//! Keys that sign tokens (JWT) in tests, with their public parts. Their private parts are in the
//! repository: never for production.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    hmac,
    rand::SystemRandom,
    rsa::PublicKeyComponents,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
        RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
    },
};
use serde_json::{Value, json};

/// The public key of [`SigningKey::rsa`], in PEM.
pub const RSA_PUBLIC: &str = include_str!("keys/rsa.pub.pem");
/// An RSA key of 1,024 bits, which is too short.
pub const WEAK_RSA_PUBLIC: &str = include_str!("keys/weak-rsa.pub.pem");
/// The public key of [`SigningKey::p256`], in PEM.
pub const P256_PUBLIC: &str = include_str!("keys/p256.pub.pem");
/// The public key of [`SigningKey::p384`], in PEM.
pub const P384_PUBLIC: &str = include_str!("keys/p384.pub.pem");
/// The public key of [`SigningKey::ed25519`], in PEM.
pub const ED25519_PUBLIC: &str = include_str!("keys/ed25519.pub.pem");
/// The private key of [`SigningKey::rsa`], in PEM.
pub const RSA_PRIVATE: &str = include_str!("keys/rsa.key.pem");

/// A key that signs tokens.
///
/// ```
/// use serde_json::json;
/// use waypost_auth::testing::SigningKey;
///
/// let key = SigningKey::p256();
/// let token = key.token(&json!({ "alg": "ES256", "kid": "a" }), &json!({ "sub": "ann" }));
/// assert_eq!(token.split('.').count(), 3);
/// let set = json!({ "keys": [key.jwk("ES256", "a")] });
/// assert_eq!(set["keys"][0]["kty"], "EC");
/// ```
#[derive(Debug)]
pub struct SigningKey(Kind);

#[derive(Debug)]
enum Kind {
    Secret(Vec<u8>),
    Rsa(RsaKeyPair),
    /// The length of a coordinate, the name of the curve, the key.
    Elliptic(usize, &'static str, EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// Builds a secret.
    pub fn secret(secret: &[u8]) -> Self {
        Self(Kind::Secret(secret.to_vec()))
    }

    /// Returns an RSA key of 2,048 bits.
    pub fn rsa() -> Self {
        Self::rsa_of(RSA_PRIVATE)
    }

    /// Returns another RSA key of 2,048 bits.
    pub fn other_rsa() -> Self {
        Self::rsa_of(include_str!("keys/other-rsa.key.pem"))
    }

    /// Returns a key on the curve P-256.
    pub fn p256() -> Self {
        let pem = include_str!("keys/p256.key.pem");
        Self::elliptic(32, "P-256", &ECDSA_P256_SHA256_FIXED_SIGNING, pem)
    }

    /// Returns a key on the curve P-384.
    pub fn p384() -> Self {
        let pem = include_str!("keys/p384.key.pem");
        Self::elliptic(48, "P-384", &ECDSA_P384_SHA384_FIXED_SIGNING, pem)
    }

    /// Returns a key on the curve Ed25519.
    pub fn ed25519() -> Self {
        let der = contents(include_str!("keys/ed25519.key.pem"));
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).expect("a key");
        Self(Kind::Ed25519(pair))
    }

    /// Returns the key as a member of a JWKS.
    pub fn jwk(&self, algorithm: &str, kid: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match &self.0 {
            Kind::Secret(secret) => json!({ "kty": "oct", "k": text(secret) }),
            Kind::Rsa(pair) => {
                let numbers = PublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({ "kty": "RSA", "n": text(&numbers.n), "e": text(&numbers.e) })
            }
            Kind::Elliptic(length, curve, pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(*length);
                json!({ "kty": "EC", "crv": curve, "x": text(x), "y": text(y) })
            }
            Kind::Ed25519(pair) => {
                let x = text(pair.public_key().as_ref());
                json!({ "kty": "OKP", "crv": "Ed25519", "x": x })
            }
        };
        jwk["use"] = "sig".into();
        jwk["alg"] = algorithm.into();
        jwk["kid"] = kid.into();
        jwk
    }

    /// Signs a message. For an algorithm that is not one of the key's, the signature is that of
    /// another algorithm of the key, or of the secret with SHA-256.
    pub fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.0 {
            Kind::Secret(secret) => {
                let hash = match algorithm {
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(hash, secret), message).as_ref().to_vec()
            }
            Kind::Rsa(pair) => {
                let encoding: &dyn RsaEncoding = match algorithm {
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(encoding, &random, message, &mut signature).expect("a signature");
                signature
            }
            Kind::Elliptic(_, _, pair) => {
                pair.sign(&random, message).expect("a signature").as_ref().to_vec()
            }
            Kind::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// Returns a token with this header and these claims, signed by the header's `alg`.
    pub fn token(&self, header: &Value, claims: &Value) -> String {
        let algorithm = header["alg"].as_str().unwrap_or_default();
        self.token_of_texts(algorithm, &header.to_string(), &claims.to_string())
    }

    /// Returns a token with these texts, which need not be JSON.
    pub fn token_of_texts(&self, algorithm: &str, header: &str, claims: &str) -> String {
        let message = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        let signature = URL_SAFE_NO_PAD.encode(self.sign(algorithm, message.as_bytes()));
        format!("{message}.{signature}")
    }

    fn rsa_of(pem: &str) -> Self {
        Self(Kind::Rsa(RsaKeyPair::from_pkcs8(&contents(pem)).expect("a key")))
    }

    fn elliptic(
        length: usize,
        curve: &'static str,
        algorithm: &'static EcdsaSigningAlgorithm,
        pem: &str,
    ) -> Self {
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, &contents(pem), &SystemRandom::new());
        Self(Kind::Elliptic(length, curve, pair.expect("a key")))
    }
}

fn contents(pem: &str) -> Vec<u8> {
    pem::parse(pem).expect("a PEM").into_contents()
}
