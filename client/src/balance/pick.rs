//! The instance chosen for one call. It counts as in flight from the choice until it is dropped, and
//! must never be counted off twice.

use std::{fmt, sync::Arc};

use crate::{proto::Instance, snapshot::Endpoint};

/// An instance chosen for one call. Keep it until the call has ended: that is what the least-loaded
/// choice goes by.
///
/// ```
/// use waypost_client::{Instance, Service, proto::Status};
///
/// let instance = Instance {
///     id: "a".into(),
///     host: "10.0.0.1".into(),
///     port: 8080,
///     status: Status::Up.into(),
///     ..Instance::default()
/// };
/// let pick = Service::fixed([instance]).pick()?;
/// assert_eq!(pick.address(), "10.0.0.1:8080");
/// assert_eq!(pick.instance().id, "a");
/// # Ok::<(), waypost_client::NoInstance>(())
/// ```
#[must_use = "dropping it says that the call has ended"]
pub struct Pick {
    endpoint: Arc<Endpoint>,
}

impl Pick {
    pub(crate) fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.begin();
        Self { endpoint }
    }

    /// The instance, as it was when it was chosen.
    ///
    /// ```
    /// use waypost_client::{Instance, Service, proto::Status};
    ///
    /// let instance = Instance {
    ///     id: "a".into(),
    ///     host: "::1".into(),
    ///     port: 8080,
    ///     status: Status::Up.into(),
    ///     ..Instance::default()
    /// };
    /// let pick = Service::fixed([instance]).pick()?;
    /// assert_eq!(pick.instance().id, "a");
    /// # Ok::<(), waypost_client::NoInstance>(())
    /// ```
    #[must_use]
    pub fn instance(&self) -> &Instance {
        self.endpoint.instance()
    }

    /// Where its main port is reached: `host:port`, an IPv6 address in brackets.
    ///
    /// ```
    /// use waypost_client::{Instance, Service, proto::Status};
    ///
    /// let instance = Instance {
    ///     id: "a".into(),
    ///     host: "::1".into(),
    ///     port: 8080,
    ///     status: Status::Up.into(),
    ///     ..Instance::default()
    /// };
    /// let pick = Service::fixed([instance]).pick()?;
    /// assert_eq!(pick.address(), "[::1]:8080");
    /// # Ok::<(), waypost_client::NoInstance>(())
    /// ```
    #[must_use]
    pub fn address(&self) -> &str {
        self.endpoint.address()
    }

    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl fmt::Debug for Pick {
    /// Without the instance's metadata, which must not get into logs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instance = self.instance();
        formatter
            .debug_struct("Pick")
            .field("service", &instance.service)
            .field("id", &instance.id)
            .field("address", &self.address())
            .finish_non_exhaustive()
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.endpoint.end();
    }
}
