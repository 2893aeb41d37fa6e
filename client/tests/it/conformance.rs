//! The registry in memory keeps the registry's contract: it passes the suite of the server.

use tower::ServiceExt;
use waypost_client::fake;
use waypost_testing::{
    conformance::{RegistryChannel, Subject},
    registry_conformance,
};

struct InMemory(fake::Registry);

impl Subject for InMemory {
    fn channel(&self) -> RegistryChannel {
        RegistryChannel::new(self.0.grpc().map_err(Into::into))
    }

    async fn expire(&self, namespace: &str, service: &str, id: &str) {
        assert!(self.0.in_namespace(namespace).expire(service, id).is_some());
    }
}

async fn in_memory() -> InMemory {
    InMemory(fake::Registry::new())
}

registry_conformance!(in_memory);
