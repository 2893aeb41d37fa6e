//! The name resolver for reqwest. Never answers for a name other than its service's.

use std::{collections::BTreeSet, io};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::net::lookup_host;

use crate::{
    balance::{NoInstance, PickContext},
    service::Service,
};

/// The number of instances that a connection is tried with, one after the other.
const ADDRESSES_MAX: usize = 3;

/// Resolves a service by its name in the URLs of a reqwest client, without a port:
/// `http://orders/v1/orders/7`. With the feature `reqwest`, which is version 0.13.
///
/// **An instance is picked for each connection, not for each request**: reqwest keeps connections
/// and sends later requests over them, and HTTP/2 has one for all. So loads are uneven, an instance
/// that drains or fails keeps its connections, and calls in flight and outcomes are unknown. If
/// that matters, use `HttpLayer` (feature `http`).
///
/// - The picked instance comes first; if it takes no connection, up to two others are tried.
/// - The URL must not name a port: reqwest would use that one instead of the instance's.
/// - Any other name is looked up as usual.
/// - While the first view is loading the request fails at once: wait for [`Service::ready`] first.
/// - TLS and `Host` use the URL, with the service's name.
///
/// ```
/// use std::sync::Arc;
/// use waypost_client::Service;
///
/// fn http_client(orders: Service) -> reqwest::Result<reqwest::Client> {
///     // Then: client.get("http://orders/v1/orders/7")
///     reqwest::Client::builder().dns_resolver(Arc::new(orders)).build()
/// }
/// # assert!(http_client(Service::fixed([])).is_ok());
/// ```
impl Resolve for Service {
    fn resolve(&self, name: Name) -> Resolving {
        // Hosts in URLs are in lower case.
        if !name.as_str().eq_ignore_ascii_case(self.name()) {
            return Box::pin(async move {
                let found: Vec<_> = lookup_host((name.as_str(), 0)).await?.collect();
                Ok(Box::new(found.into_iter()) as Addrs)
            });
        }
        let picked = addresses(self);
        Box::pin(async move { Ok(Box::new(look_up(picked?).await?.into_iter()) as Addrs) })
    }
}

/// Returns the addresses of picked instances, the first pick first.
fn addresses(service: &Service) -> Result<Vec<String>, NoInstance> {
    let picks = (0..ADDRESSES_MAX)
        .map(|_| service.pick_now(&PickContext::new()))
        .collect::<Result<Vec<_>, _>>()?;
    let mut seen = BTreeSet::new();
    let new = picks.iter().map(|pick| pick.address()).filter(|address| seen.insert(*address));
    Ok(new.map(str::to_owned).collect())
}

/// Looks up `addresses`. Omits those that fail, unless all do.
async fn look_up(addresses: Vec<String>) -> io::Result<Vec<std::net::SocketAddr>> {
    let (mut found, mut failure) = (Vec::new(), None);
    for address in addresses {
        match lookup_host(address).await {
            Ok(addresses) => found.extend(addresses),
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}
