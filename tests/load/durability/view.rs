//! The whole state of a registry without writers, and its cursor.

use std::collections::BTreeMap;

use tonic::transport::Channel;
use waypost_client::proto::{
    Cursor, Instance, ListServicesRequest, ListServicesResponse, discovery_client::DiscoveryClient,
};
use waypost_testing::{
    registry::{Identity, identity, resolve_all_in},
    wait::soon,
};

/// Every namespace that is written to.
pub(crate) const NAMESPACES: [&str; 2] = ["north", "south"];
/// The services of each that are written to.
pub(crate) const BUSY_SERVICES: [&str; 3] = ["carts", "orders", "stock"];
/// A service without instances.
pub(crate) const EMPTY_SERVICE: &str = "users";

/// The visible state of the registry.
pub(crate) struct View {
    pub(crate) instances: BTreeMap<Identity, Instance>,
    pub(crate) cursor: Cursor,
}

impl View {
    /// Reads a registry without writers.
    pub(crate) async fn read(channel: Channel) -> Self {
        soon("the registry's state", Self::read_all(DiscoveryClient::new(channel))).await
    }

    async fn read_all(mut discovery: DiscoveryClient<Channel>) -> Self {
        let mut instances = BTreeMap::new();
        let mut cursors = Vec::new();
        for namespace in NAMESPACES {
            let mut counts = BTreeMap::new();
            for service in BUSY_SERVICES.into_iter().chain([EMPTY_SERVICE]) {
                let resolved = resolve_all_in(&mut discovery, namespace, service).await;
                cursors.extend(resolved.cursor);
                if !resolved.instances.is_empty() {
                    counts.insert(service.to_owned(), resolved.instances.len());
                }
                let named = resolved.instances.into_iter();
                instances.extend(named.map(|instance| (identity(&instance), instance)));
            }
            let ListServicesResponse { services, cursor, .. } =
                list(&mut discovery, namespace).await;
            cursors.extend(cursor);
            let listed =
                services.into_iter().map(|listed| (listed.name, listed.instances as usize));
            assert_eq!(listed.collect::<BTreeMap<_, _>>(), counts, "the services of {namespace}");
        }
        let cursor = cursors.pop().expect("an answer has a cursor");
        assert!(cursors.iter().all(|other| *other == cursor), "it is not quiet: {cursors:?}");
        Self { instances, cursor }
    }

    /// The part in these services of a namespace; none: in the namespace.
    pub(crate) fn within(
        &self,
        namespace: &str,
        services: &[String],
    ) -> BTreeMap<Identity, Instance> {
        let wanted = |(within, service, _): &Identity| {
            within == namespace && (services.is_empty() || services.contains(service))
        };
        let instances = self.instances.iter().filter(|(identity, _)| wanted(identity));
        instances.map(|(identity, instance)| (identity.clone(), instance.clone())).collect()
    }
}

async fn list(discovery: &mut DiscoveryClient<Channel>, namespace: &str) -> ListServicesResponse {
    let namespace = namespace.to_owned();
    let request = ListServicesRequest { namespace, ..ListServicesRequest::default() };
    discovery.list_services(request).await.expect("listed").into_inner()
}
