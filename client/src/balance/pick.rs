//! The instance picked for one call. Invariant: it counts as in flight once, from the pick until
//! the drop.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    endpoint::{Endpoint, Outcome},
    proto::Instance,
};

/// An instance picked for one call. Keep it until the call has ended: picks depend on the calls in
/// flight. [Report](Self::report) the outcome, so that they depend on that as well.
///
/// ```
/// use waypost_client::{Instance, PickContext, Service, proto::Status};
///
/// let instance = Instance {
///     id: "a".into(),
///     host: "10.0.0.1".into(),
///     port: 8080,
///     status: Status::Up.into(),
///     ..Instance::default()
/// };
/// let pick = Service::fixed([instance]).pick(&PickContext::new())?;
/// assert_eq!(pick.address(), "10.0.0.1:8080");
/// assert_eq!(pick.instance().id, "a");
/// # Ok::<(), waypost_client::NoInstance>(())
/// ```
#[must_use = "dropping it ends the call"]
pub struct Pick {
    endpoint: Arc<Endpoint>,
}

impl Pick {
    pub(super) fn new(endpoint: &Arc<Endpoint>) -> Self {
        endpoint.begin();
        Self { endpoint: Arc::clone(endpoint) }
    }

    /// Returns the instance, as it was when it was picked.
    ///
    /// ```
    /// use waypost_client::{Instance, PickContext, Service, proto::Status};
    ///
    /// let instance = Instance {
    ///     id: "a".into(),
    ///     host: "::1".into(),
    ///     port: 8080,
    ///     status: Status::Up.into(),
    ///     ..Instance::default()
    /// };
    /// let pick = Service::fixed([instance]).pick(&PickContext::new())?;
    /// assert_eq!(pick.instance().id, "a");
    /// # Ok::<(), waypost_client::NoInstance>(())
    /// ```
    #[must_use]
    pub fn instance(&self) -> &Instance {
        self.endpoint.instance()
    }

    /// Returns the address of its main port: `host:port`, an IPv6 address in brackets.
    ///
    /// ```
    /// use waypost_client::{Instance, PickContext, Service, proto::Status};
    ///
    /// let instance = Instance {
    ///     id: "a".into(),
    ///     host: "::1".into(),
    ///     port: 8080,
    ///     status: Status::Up.into(),
    ///     ..Instance::default()
    /// };
    /// let pick = Service::fixed([instance]).pick(&PickContext::new())?;
    /// assert_eq!(pick.address(), "[::1]:8080");
    /// # Ok::<(), waypost_client::NoInstance>(())
    /// ```
    #[must_use]
    pub fn address(&self) -> &str {
        self.endpoint.address()
    }

    /// Ends the call, and reports its outcome and the time until its response. Later picks depend
    /// on both: see [`Policy`](crate::Policy).
    ///
    /// ```
    /// use std::time::Duration;
    /// use waypost_client::{Instance, Outcome, PickContext, Service, proto::Status};
    ///
    /// # let up = Instance { id: "a".into(), status: Status::Up.into(), ..Instance::default() };
    /// let pick = Service::fixed([up]).pick(&PickContext::new())?;
    /// // ... the call ...
    /// pick.report(Outcome::Success, Duration::from_millis(3));
    /// # Ok::<(), waypost_client::NoInstance>(())
    /// ```
    pub fn report(self, outcome: Outcome, took: Duration) {
        self.endpoint.record(outcome, took);
    }

    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl fmt::Debug for Pick {
    /// Omits the instance's metadata, which must not get into logs.
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
