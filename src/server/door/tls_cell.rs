//! The credentials of new connections. Replacing them changes no standing connection.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use waypost_auth::tls::{ClientAuth, ClientRoots, IdentityFolder};

/// One version of a server's credentials, and the roots that its callers are verified with.
#[derive(Clone)]
pub(crate) struct TlsContext {
    config: Arc<ServerConfig>,
    roots: ClientRoots,
}

impl TlsContext {
    /// Makes the context of a folder.
    pub(crate) fn new(folder: &IdentityFolder, client_auth: ClientAuth) -> Self {
        Self { config: folder.server_config(client_auth), roots: folder.roots().clone() }
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    pub(super) fn roots(&self) -> &ClientRoots {
        &self.roots
    }
}

/// The version for new connections; none: the port speaks clear text.
#[derive(Default)]
pub(crate) struct TlsCell(ArcSwapOption<TlsContext>);

impl TlsCell {
    /// Returns the version for a new connection.
    pub(crate) fn current(&self) -> Option<Arc<TlsContext>> {
        self.0.load_full()
    }

    /// Puts a version into force for new connections.
    pub(crate) fn replace(&self, context: TlsContext) {
        self.0.store(Some(Arc::new(context)));
    }
}

impl std::fmt::Debug for TlsCell {
    /// Leaves out the key, which must not get into logs.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let speaks = if self.0.load().is_some() { "TLS" } else { "clear text" };
        formatter.debug_tuple("TlsCell").field(&speaks).finish()
    }
}
