//! The credentials of the server for new connections, and the roots that callers' certificates are
//! verified with.

use std::{fmt, sync::Arc};

use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use waypost_auth::{
    certificate::Lifetime,
    tls::{ClientAuth, ClientRoots, IdentityFolder},
};

/// One version of a server's credentials.
#[derive(Clone)]
pub(crate) struct TlsContext {
    config: Arc<ServerConfig>,
    roots: ClientRoots,
    lifetime: Lifetime,
    authority_lifetimes: Box<[Lifetime]>,
}

impl TlsContext {
    /// Makes the context of a folder.
    pub(crate) fn new(folder: &IdentityFolder, client_auth: ClientAuth) -> Self {
        Self {
            config: folder.server_config(client_auth),
            roots: folder.roots().clone(),
            lifetime: folder.lifetime(),
            authority_lifetimes: folder.authority_lifetimes().into(),
        }
    }

    /// Returns the acceptor of handshakes.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    /// Returns the lifetime of the server's own certificate.
    pub(crate) fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// Returns the lifetimes of the authorities that callers' certificates are of.
    pub(crate) fn authority_lifetimes(&self) -> &[Lifetime] {
        &self.authority_lifetimes
    }

    /// Returns the roots.
    pub(crate) fn roots(&self) -> &ClientRoots {
        &self.roots
    }
}

impl fmt::Debug for TlsContext {
    /// Omits the key.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TlsContext").finish_non_exhaustive()
    }
}
