//! The shutdown of all connections, in stages.

use tokio_util::sync::CancellationToken;

/// The stages of a shutdown, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shutdown {
    /// Ends the accept loop. Each connection of HTTP/1.1 serves one more request, with
    /// `Connection: close`: a request may be on its way when an idle connection closes. Connections
    /// of HTTP/2 announce their end.
    pub(crate) drain: CancellationToken,
    /// Closes idle connections.
    pub(crate) close_idle: CancellationToken,
    /// Closes all connections.
    pub(crate) abort: CancellationToken,
}
