//! The algorithms of signatures (RFC 7518, section 3; RFC 8037, section 3.1), and the types of
//! keys that they need. Pure.

use std::{fmt, str::FromStr};

/// An algorithm that verifies signatures. `none` is not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

/// A type of keys. Each algorithm needs one type; this rule is what keeps a public key from being
/// used as a secret that everyone has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyType {
    Secret,
    Rsa,
    P256,
    P384,
    Ed25519,
}

const ALL: [(Algorithm, &str, KeyType); 12] = [
    (Algorithm::Hs256, "HS256", KeyType::Secret),
    (Algorithm::Hs384, "HS384", KeyType::Secret),
    (Algorithm::Hs512, "HS512", KeyType::Secret),
    (Algorithm::Rs256, "RS256", KeyType::Rsa),
    (Algorithm::Rs384, "RS384", KeyType::Rsa),
    (Algorithm::Rs512, "RS512", KeyType::Rsa),
    (Algorithm::Ps256, "PS256", KeyType::Rsa),
    (Algorithm::Ps384, "PS384", KeyType::Rsa),
    (Algorithm::Ps512, "PS512", KeyType::Rsa),
    (Algorithm::Es256, "ES256", KeyType::P256),
    (Algorithm::Es384, "ES384", KeyType::P384),
    (Algorithm::EdDsa, "EdDSA", KeyType::Ed25519),
];

impl Algorithm {
    /// Returns the type of the keys that verify signatures of this algorithm.
    pub(crate) fn key_type(self) -> KeyType {
        self.row().2
    }

    /// Returns the name in the headers of tokens.
    pub(crate) fn name(self) -> &'static str {
        self.row().1
    }

    fn row(self) -> &'static (Self, &'static str, KeyType) {
        ALL.iter().find(|row| row.0 == self).expect("each algorithm has a row")
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = ();

    /// Names are case-sensitive.
    fn from_str(name: &str) -> Result<Self, ()> {
        ALL.iter().find(|row| row.1 == name).map(|row| row.0).ok_or(())
    }
}

impl KeyType {
    /// Returns all algorithms of keys of this type.
    pub(crate) fn algorithms(self) -> Vec<Algorithm> {
        ALL.iter().filter(|row| row.2 == self).map(|row| row.0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_the_order_of_the_algorithms() {
        for (index, (algorithm, name, key_type)) in ALL.into_iter().enumerate() {
            assert_eq!(algorithm as usize, index);
            assert_eq!((name.parse(), algorithm.key_type()), (Ok(algorithm), key_type));
            assert!(key_type.algorithms().contains(&algorithm));
        }
        for name in ["", "none", "hs256", "HS256 ", "ES512", "Hs256", "ES256K", "RSA-OAEP"] {
            assert_eq!(name.parse::<Algorithm>(), Err(()), "{name}");
        }
    }
}
