//! The parts of a token: its header, claims and signature. Pure.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny},
};

use crate::Unauthorized;

/// A token whose signature is not verified yet.
pub(super) struct SignedToken<'a> {
    /// The name of the algorithm, and the id of the key.
    pub(super) alg: String,
    pub(super) kid: Option<String>,
    /// The text that is signed.
    pub(super) message: &'a str,
    claims: &'a str,
    signature: &'a str,
}

/// The header of a token (RFC 7515, section 4.1). Ignores other sources of keys (`jwk`, `jku`,
/// `x5c`, `x5u`): the author of a token could name its own.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: bool,
    #[serde(default, deserialize_with = "present")]
    b64: bool,
    /// Set if the token contains another token.
    #[serde(default, deserialize_with = "present")]
    cty: bool,
    #[serde(default, deserialize_with = "present")]
    enc: bool,
    #[serde(default, deserialize_with = "present")]
    zip: bool,
}

impl<'a> SignedToken<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, Unauthorized> {
        let (message, signature) = text.rsplit_once('.').ok_or(Unauthorized::MalformedToken)?;
        let (header, claims) = message.split_once('.').ok_or(Unauthorized::MalformedToken)?;
        if claims.contains('.') {
            return Err(Unauthorized::MalformedToken);
        }
        let header: Header = read(header).ok_or(Unauthorized::UnreadableHeader)?;
        if header.crit || header.b64 || header.cty || header.enc || header.zip {
            return Err(Unauthorized::Unsupported);
        }
        Ok(Self { alg: header.alg, kid: header.kid, message, claims, signature })
    }

    /// Returns the bytes of the signature; `None` if they are not base64url.
    pub(super) fn signature(&self) -> Option<Vec<u8>> {
        URL_SAFE_NO_PAD.decode(self.signature).ok()
    }

    /// Reads the claims. Called after the signature was verified.
    pub(super) fn claims<T: DeserializeOwned>(&self) -> Result<T, Unauthorized> {
        read(self.claims).ok_or(Unauthorized::UnreadableClaims)
    }
}

/// Decodes a part of a token: base64url of a JSON object. Rejects duplicate names, since readers
/// differ in which one they use.
fn read<T: DeserializeOwned>(part: &str) -> Option<T> {
    // serde_json skips members that nothing reads, whether they are UTF-8 or not.
    let json = String::from_utf8(URL_SAFE_NO_PAD.decode(part).ok()?).ok()?;
    // serde would read a list as the fields of the type, in their order.
    json.trim_ascii_start().starts_with('{').then(|| serde_json::from_str(&json).ok())?
}

/// Returns true for a field with any value.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}
