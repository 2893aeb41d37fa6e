//! The credentials of a client as its user sets them. Names files and sources; holds no text of a
//! token.

use std::{fmt, sync::Arc};

#[cfg(feature = "tls")]
use super::tls::{FolderError, FollowedFolder};
use super::token::TokenSource;

/// Proof of this client's identity to the registry, and of the registry's to this client.
///
/// An identity folder has a certificate for TLS in both directions; a token comes on top or
/// instead. With both, the registry takes the token's name. Both are followed while the client
/// runs: what is new serves new connections at once. A standing connection moves at a random time,
/// before a third of what its previous certificate had left has passed (within a minute after a new
/// token): watches resume and leases renew on a new connection, then the previous one closes.
///
/// Credentials are sent over TLS, or to an address of this machine, and nowhere else:
/// [`Builder::build`](crate::Builder::build) refuses other addresses. They are never sent to
/// instances.
///
/// ```no_run
/// use waypost_client::{Client, Credentials, TokenFile};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // A workload with a certificate.
/// let workload = Credentials::folder("/var/run/waypost/tls")?;
/// // A workload with a token that a kubelet rotates, and the CA of the registry.
/// let pod = Credentials::folder("/etc/waypost")?
///     .token(TokenFile::open("/var/run/secrets/waypost/token")?);
/// let client = Client::builder()
///     .registry("https://registry.internal:7510")
///     .credentials(workload)
///     .build()?;
/// # drop((client, pod));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Credentials {
    #[cfg(feature = "tls")]
    pub(super) folder: Option<Arc<FollowedFolder>>,
    #[cfg(feature = "tls")]
    pub(super) server_id: Option<String>,
    pub(super) token: Option<Arc<dyn TokenSource>>,
}

impl Credentials {
    /// Reads an identity folder (feature `tls`), with files in PEM:
    ///
    /// - `ca.crt`: the certificates of the CAs that the registry's certificate may be of.
    /// - `tls.crt` and `tls.key`: the client's certificate, then those between it and a CA, and its
    ///   key. A folder without both is for clients that have only tokens.
    ///
    /// This is what cert-manager mounts and `waypost ca issue` writes. Blocks; needs no runtime.
    /// Once the client runs, it reads the files each second, compares their content, and takes new
    /// content as a whole once it has stayed the same for 100 ms. An incomplete or invalid folder
    /// is logged (`error`, once for each change) and changes nothing.
    ///
    /// # Errors
    /// [`FolderError`] names the file and the reason.
    #[cfg(feature = "tls")]
    pub fn folder(path: impl Into<std::path::PathBuf>) -> Result<Self, FolderError> {
        let folder = FollowedFolder::open(path.into())?;
        Ok(Self { folder: Some(Arc::new(folder)), ..Self::default() })
    }

    /// Sends a token with each request to the registry: a [`TokenFile`](crate::TokenFile), a
    /// [`Token`](crate::Token), or a source of your own. Default: none.
    #[must_use]
    pub fn token(mut self, source: impl TokenSource + 'static) -> Self {
        self.token = Some(Arc::new(source));
        self
    }

    /// Expects this SPIFFE ID in the registry's certificate, as its only URI, instead of the host
    /// of the URL (feature `tls`). `Builder::build` refuses an invalid one. Default: none.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn server_id(self, id: impl Into<String>) -> Self {
        Self { server_id: Some(id.into()), ..self }
    }
}

impl fmt::Debug for Credentials {
    /// Leaves out the token and its source.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Credentials");
        #[cfg(feature = "tls")]
        debug.field("folder", &self.folder).field("server_id", &self.server_id);
        debug.field("has_token", &self.token.is_some()).finish()
    }
}
