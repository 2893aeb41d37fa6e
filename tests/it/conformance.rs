//! The server keeps the registry's contract, over a socket.

use tower::ServiceExt;
use waypost_testing::{
    conformance::{RegistryChannel, Subject},
    registry_conformance,
};

use crate::support::TestServer;

impl Subject for TestServer {
    fn channel(&self) -> RegistryChannel {
        RegistryChannel::new(self.channel().map_err(Into::into))
    }

    /// Returns at once: the server expires the lease, and the watch of the check waits.
    async fn expire(&self, _: &str, _: &str, _: &str) {}
}

registry_conformance!(TestServer::start);
