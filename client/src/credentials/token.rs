//! Tokens that prove the caller's identity to the registry, and their sources. Invariant: the text
//! of a token is in no `Debug`, error or log line.

use std::{fmt, path::PathBuf};

use http::HeaderValue;

/// The most bytes of a token. Registries accept 16 KiB of headers in all.
pub(super) const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// A token that the registry accepts as proof of identity. Its text is secret: `Debug` leaves it
/// out.
///
/// ```
/// use waypost_client::Token;
///
/// # fn main() -> Result<(), waypost_client::TokenError> {
/// let token = Token::new("waypost_2c26b46b68ffc68f")?;
/// assert_eq!(format!("{token:?}"), "Token");
/// assert!(Token::new("two words").is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// With the scheme; marked as sensitive.
    authorization: HeaderValue,
}

/// An error in a token, or of getting one. Never contains the token.
///
/// ```
/// use waypost_client::{Token, TokenError};
///
/// assert_eq!(Token::new("").unwrap_err(), TokenError::Empty);
/// assert_eq!(TokenError::unavailable("the vault is sealed").to_string(), "the vault is sealed");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The token has no characters.
    #[error("the token is empty")]
    Empty,
    /// The token has more than 8,192 bytes.
    #[error("the token has more than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// The token has a character that a header can't carry.
    #[error("the token has a character other than letters, digits and punctuation of ASCII")]
    Invalid,
    /// The file of the token can't be read.
    #[error("can't read the token file {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The file holds something other than one token.
    #[error("the token file {} can't be used: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: Box<TokenError>,
    },
    /// The source has no token at present.
    #[error("{reason}")]
    Unavailable {
        /// The reason.
        reason: String,
    },
}

/// A source of tokens. Each request to the registry carries the token that the source has then.
///
/// Implementations return what they have: they never block and do no I/O. The client calls the
/// source for each request, and each second to see whether the token has changed.
///
/// ```
/// use std::sync::Mutex;
/// use waypost_client::{Token, TokenError, TokenSource};
///
/// struct Latest(Mutex<Option<Token>>);
///
/// impl TokenSource for Latest {
///     fn token(&self) -> Result<Token, TokenError> {
///         let latest = self.0.lock().expect("nothing panics while it holds the lock");
///         latest.clone().ok_or_else(|| TokenError::unavailable("not logged in yet"))
///     }
/// }
/// # assert!(Latest(Mutex::default()).token().is_err());
/// ```
pub trait TokenSource: Send + Sync {
    /// Returns the token for the next request.
    ///
    /// # Errors
    /// There is no token. The request fails, and the client retries it as if the registry had
    /// refused the credentials.
    fn token(&self) -> Result<Token, TokenError>;
}

/// A token that never changes.
impl TokenSource for Token {
    fn token(&self) -> Result<Token, TokenError> {
        Ok(self.clone())
    }
}

impl Token {
    /// Creates a token from its text, of 1 to 8,192 visible ASCII characters.
    ///
    /// # Errors
    /// [`TokenError::Empty`], [`TokenError::TooLong`] or [`TokenError::Invalid`].
    pub fn new(text: impl AsRef<str>) -> Result<Self, TokenError> {
        let text = text.as_ref();
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        if text.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Invalid);
        }
        let authorization = HeaderValue::try_from(format!("Bearer {text}"));
        let mut authorization = authorization.map_err(|_| TokenError::Invalid)?;
        authorization.set_sensitive(true);
        Ok(Self { authorization })
    }

    /// The value of the header `authorization`.
    pub(crate) fn authorization(&self) -> HeaderValue {
        self.authorization.clone()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token")
    }
}

impl TokenError {
    /// Creates the error of a source that has no token, with the reason.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_sensitive_and_shows_nothing() {
        let token = Token::new("s3cret").unwrap();
        let header = token.authorization();
        assert_eq!(header, "Bearer s3cret");
        assert!(header.is_sensitive());
        assert!(!format!("{token:?} {header:?}").contains("s3cret"));
    }

    #[test]
    fn texts_that_are_no_token_are_rejected_without_their_text() {
        for (text, error) in [
            ("", TokenError::Empty),
            ("a b", TokenError::Invalid),
            ("s3cret\n", TokenError::Invalid),
            ("s3cret\u{e9}", TokenError::Invalid),
            ("s3cret\0", TokenError::Invalid),
        ] {
            let found = Token::new(text).unwrap_err();
            assert!(!found.to_string().contains("s3cret"));
            assert_eq!(found, error, "{text:?}");
        }
        assert!(Token::new("x".repeat(TOKEN_BYTES_MAX)).is_ok());
        assert_eq!(Token::new("x".repeat(TOKEN_BYTES_MAX + 1)), Err(TokenError::TooLong));
    }
}
