//! Errors of building a client.

/// An error of building a client.
///
/// ```
/// use waypost_client::{BuildError, Client};
///
/// let Err(BuildError::BadUrl { url, reason }) = Client::new("10.0.0.1:7510").map(drop) else {
///     unreachable!("it lacks http://");
/// };
/// assert_eq!(url, "10.0.0.1:7510");
/// assert!(!reason.is_empty());
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A URL of the registry is not of the form `https://host:port` or `http://host:port`.
    #[error("{url:?} is not the URL of a registry: {reason}")]
    BadUrl {
        /// The URL.
        url: String,
        /// The reason.
        reason: String,
    },
    /// Credentials would cross a network in clear text.
    #[error(
        "credentials are not sent to {url} in clear text: \
         use https://, or an address of this machine"
    )]
    ClearText {
        /// The URL.
        url: String,
    },
    /// A URL has `https`, and there are no CA certificates to trust the registry by.
    #[error("{url} needs CA certificates to trust: set credentials with a folder that has ca.crt")]
    NoRoots {
        /// The URL.
        url: String,
    },
    /// The expected id of the server is not a SPIFFE ID.
    #[error("{id:?} is not a SPIFFE ID for a server: {reason}")]
    BadServerId {
        /// The id.
        id: String,
        /// The reason.
        reason: String,
    },
}
