//! The state of the connection to the registry, as users see it. Independent of views, which
//! outlive an outage of the registry.

use std::sync::Arc;

use tokio::time::Instant;

/// The state of the connection to the registry. Whether a service's instances are known is
/// [`Service::ready`](crate::Service::ready), and whether they are up to date
/// [`Service::freshness`](crate::Service::freshness).
///
/// ```no_run
/// use waypost_client::{Client, RegistryState};
///
/// # async fn example(client: Client) {
/// let mut state = client.registry_state();
/// while state.changed().await.is_ok() {
///     match &*state.borrow_and_update() {
///         RegistryState::Connected { peer } => println!("connected to {peer}"),
///         RegistryState::Unreachable { reason, .. } => println!("registry unreachable: {reason}"),
///         RegistryState::Denied { reason, .. } => println!("credentials refused: {reason}"),
///         _ => {}
///     }
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistryState {
    /// No request was sent yet.
    Idle,
    /// The registry responds.
    Connected {
        /// The address, `host:port`.
        peer: Arc<str>,
    },
    /// The last request failed. The client retries with backoff, and at the next address if there
    /// are several.
    Unreachable {
        /// The time of the first failure.
        since: Instant,
        /// The reason of the first failure.
        reason: Arc<str>,
    },
    /// The registry does not accept the credentials, or there is no token to send. The client
    /// retries as soon as they change, and otherwise with a backoff of up to 30 s. Views stay.
    Denied {
        /// The time of the first refusal.
        since: Instant,
        /// The reason of the first refusal.
        reason: Arc<str>,
    },
}
