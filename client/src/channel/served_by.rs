//! The instance that served a call, attached to the response.

use std::{fmt, sync::Arc};

use crate::{endpoint::Endpoint, proto::Instance};

/// The instance that responded to a call through a channel: an extension of the response.
///
/// ```
/// use waypost_client::ServedBy;
///
/// fn log(response: &http::Response<tonic::body::Body>) {
///     if let Some(by) = response.extensions().get::<ServedBy>() {
///         println!("{} after {} attempts", by.instance().id, by.attempts());
///     }
/// }
/// # let _ = log;
/// ```
#[derive(Clone)]
pub struct ServedBy {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) attempts: u32,
}

impl ServedBy {
    /// Returns the instance, as it was when the call was sent.
    ///
    /// ```
    /// # use waypost_client::ServedBy;
    /// fn id(by: &ServedBy) -> &str {
    ///     &by.instance().id
    /// }
    /// # let _ = id;
    /// ```
    #[must_use]
    pub fn instance(&self) -> &Instance {
        self.endpoint.instance()
    }

    /// Returns the number of attempts, this one included.
    ///
    /// ```
    /// # use waypost_client::ServedBy;
    /// fn was_sent_again(by: &ServedBy) -> bool {
    ///     by.attempts() > 1
    /// }
    /// # let _ = was_sent_again;
    /// ```
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

impl fmt::Debug for ServedBy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ServedBy")
            .field("id", &self.instance().id)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}
