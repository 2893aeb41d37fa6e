//! How a client stands with its registry, as users see it. It says nothing of what is known: views
//! outlive the registry's absence.

use std::sync::Arc;

use tokio::time::Instant;

/// Whether the registry can be reached, by what a client heard last. Two things besides are told
/// elsewhere: whether a service's instances are known ([`Service::ready`](crate::Service::ready)), and
/// whether they are up to date ([`Service::freshness`](crate::Service::freshness)).
///
/// ```no_run
/// use waypost_client::{Client, RegistryState};
///
/// # async fn example(client: Client) {
/// let mut link = client.registry_state();
/// while link.changed().await.is_ok() {
///     match &*link.borrow_and_update() {
///         RegistryState::Connected { peer } => println!("talking to {peer}"),
///         RegistryState::Unreachable { since, reason } => println!("{:?}: {reason}", since.elapsed()),
///         _ => {}
///     }
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistryState {
    /// Nothing was asked yet.
    Idle,
    /// The registry answers.
    Connected {
        /// The address, `host:port`.
        peer: Arc<str>,
    },
    /// What was asked last failed, and nothing was heard since. It is asked again, with backoff, and
    /// at the next address where there are several.
    Unreachable {
        /// When it failed first.
        since: Instant,
        /// Why it failed first.
        reason: Arc<str>,
    },
}
