//! The freshness of a view.

use tokio::time::Instant;

/// The freshness of a view: whether it is what the registry holds. Calls go on with a stale view.
///
/// A registry sends a message at least every 10 s. A stream that breaks is noticed at once; one
/// that falls silent when its connection fails a keep-alive ping ([`Builder::keep_alive`]), or
/// after 25 s.
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
    /// The registry sends each change as it happens.
    Live,
    /// The registry is unreachable, or its first snapshot is not complete: changes may be missing.
    Stale {
        /// The end of the stream, or the start of the watch if there was no stream.
        since: Instant,
    },
}

impl Freshness {
    /// Since when the view is not up to date; none if it is.
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
