//! The lookup of the instance that holds an id.

use crate::{
    proto::{Instance, ResolveRequest, discovery_client::DiscoveryClient},
    registry::{RegistryLink, RequestFailure},
};

/// The limits of a lookup: instances on a page, and pages.
const PAGE_SIZE: u32 = 1_000;
const PAGES_MAX: usize = 10_000;

/// Looks up the instance that holds the id of `wanted`, page by page: a service may be larger than
/// one message. Cancel safe.
pub(super) async fn find(
    link: &RegistryLink,
    wanted: &Instance,
) -> Result<Option<Instance>, RequestFailure> {
    let mut page_token = String::new();
    // Bounded: a registry holds fewer instances than fit on these pages.
    for _ in 0..PAGES_MAX {
        let request = ResolveRequest {
            namespace: wanted.namespace.clone(),
            service: wanted.service.clone(),
            all_statuses: true,
            page_size: PAGE_SIZE,
            page_token,
            ..ResolveRequest::default()
        };
        let requested = link.request(|connection| async move {
            DiscoveryClient::new(connection).resolve(request).await
        });
        let page = requested.await?;
        let holder = page.instances.into_iter().find(|instance| instance.id == wanted.id);
        if holder.is_some() || page.next_page_token.is_empty() {
            return Ok(holder);
        }
        page_token = page.next_page_token;
    }
    Ok(None)
}
