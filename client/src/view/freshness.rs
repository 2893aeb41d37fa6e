//! Whether a view is up to date. It says nothing of whether there is one, nor of its instances.

use tokio::time::Instant;

/// Whether what is known of a service is what the registry holds. Calls go on either way: a view that
/// is not up to date is the best there is.
///
/// A registry says something at least every 10 s. A stream that breaks is noticed at once, one that
/// falls silent when its connection does not answer ([`Builder::keep_alive`]), or after 25 s.
///
/// ```
/// use waypost_client::{Freshness, Service};
///
/// let service = Service::fixed([]);
/// assert_eq!(*service.freshness().borrow(), Freshness::Live);
/// ```
///
/// [`Builder::keep_alive`]: crate::Builder::keep_alive
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Freshness {
    /// The registry tells of each change as it comes.
    Live,
    /// The registry is not heard, or has not told everything yet: there may have been changes.
    Stale {
        /// Since when: the end of the stream, or the begin of the watch where there was none.
        since: Instant,
    },
}

impl Freshness {
    /// Since when it is not up to date; none where it is.
    ///
    /// ```
    /// # use waypost_client::Service;
    /// let stale_since = Service::fixed([]).freshness().borrow().stale_since();
    /// assert!(stale_since.is_none());
    /// ```
    #[must_use]
    pub fn stale_since(&self) -> Option<Instant> {
        match self {
            Self::Live => None,
            Self::Stale { since } => Some(*since),
        }
    }
}
