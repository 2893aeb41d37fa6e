//! The requirements that one call has for its instance. Borrows everything, so that creating it is
//! free.

use http::Extensions;

use crate::{endpoint::Endpoint, proto::Filter, runtime::hash::hash};

/// The requirements that one call has for its instance. The default has none.
///
/// ```
/// use waypost_client::{PickContext, Policy, Service};
///
/// # fn example(orders: &Service) -> Result<(), waypost_client::NoInstance> {
/// // Any instance.
/// let pick = orders.pick(&PickContext::new())?;
/// # drop(pick);
/// // The instance that this customer's calls go to.
/// let sticky = orders.with_policy(Policy::Rendezvous);
/// let pick = sticky.pick(&PickContext::new().key("customer 17"))?;
/// # drop(pick);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct PickContext<'a> {
    pub(super) key: Option<u64>,
    pub(super) filter: Option<&'a Filter>,
    pub(super) healthy_only: bool,
}

/// A key for calls that belong together, as [`PickContext::key`] sets it, for a call through a
/// channel or an `HttpLayer`: an extension of the request.
///
/// ```
/// use waypost_client::CallKey;
///
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(CallKey::new("customer 17"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallKey(u64);

impl CallKey {
    /// Creates a key. It is hashed (FNV-1a) and not kept.
    ///
    /// ```
    /// use waypost_client::CallKey;
    /// assert_eq!(CallKey::new("customer 17"), CallKey::new(b"customer 17"));
    /// ```
    #[must_use]
    pub fn new(key: impl AsRef<[u8]>) -> Self {
        Self(hash(key.as_ref()))
    }
}

impl PickContext<'_> {
    /// Reads the requirements of a request.
    pub(crate) fn from_extensions(extensions: &Extensions) -> Self {
        let key = extensions.get::<CallKey>().map(|CallKey(key)| *key);
        Self { key, ..Self::new() }
    }
}

impl<'a> PickContext<'a> {
    /// Creates a context without requirements.
    ///
    /// ```
    /// use waypost_client::{NoInstance, PickContext, Service};
    ///
    /// let none = Service::fixed([]).pick(&PickContext::new()).unwrap_err();
    /// assert_eq!(none, NoInstance::Empty);
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self { key: None, filter: None, healthy_only: false }
    }

    /// Sets a key for calls that belong together: a customer, a session, a shard.
    /// [`Policy::Rendezvous`](crate::Policy::Rendezvous) sends equal keys to the same instance,
    /// from every process; the other policies ignore it. It is hashed (FNV-1a) and not kept.
    ///
    /// ```
    /// # use waypost_client::PickContext;
    /// let context = PickContext::new().key("customer 17");
    /// # let _ = context;
    /// ```
    #[must_use]
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.key = Some(hash(key.as_ref()));
        self
    }

    /// Accepts only instances that match. For a filter of all calls,
    /// [`Service::with_filter`](crate::Service::with_filter) is faster: it checks each instance
    /// once per view, this one some of them per call.
    ///
    /// ```
    /// use waypost_client::{Filter, Instance, PickContext, Service, proto::Status};
    ///
    /// let instance = |id: &str, version: &str| Instance {
    ///     id: id.into(),
    ///     version: version.into(),
    ///     status: Status::Up.into(),
    ///     ..Instance::default()
    /// };
    /// let service = Service::fixed([instance("a", "1"), instance("b", "2")]);
    /// let second = Filter { versions: vec!["2".into()], ..Filter::default() };
    /// let pick = service.pick(&PickContext::new().filter(&second))?;
    /// assert_eq!(pick.instance().id, "b");
    /// # Ok::<(), waypost_client::NoInstance>(())
    /// ```
    #[must_use]
    pub const fn filter(mut self, filter: &'a Filter) -> Self {
        self.filter = Some(filter);
        self
    }

    /// Accepts no [ejected](crate::Policy) instance: the pick fails instead. Without it, all
    /// instances are called while most are ejected.
    ///
    /// ```
    /// use waypost_client::{Instance, NoInstance, Outcome, PickContext, Service, proto::Status};
    /// use std::time::Duration;
    ///
    /// let up = Instance { id: "a".into(), status: Status::Up.into(), ..Instance::default() };
    /// let service = Service::fixed([up]);
    /// for _ in 0..5 {
    ///     let pick = service.pick(&PickContext::new())?;
    ///     pick.report(Outcome::Failure, Duration::from_millis(1));
    /// }
    /// assert!(service.pick(&PickContext::new()).is_ok());
    /// let none = service.pick(&PickContext::new().healthy_only()).unwrap_err();
    /// assert_eq!(none, NoInstance::AllEjected { instances: 1 });
    /// # Ok::<(), NoInstance>(())
    /// ```
    #[must_use]
    pub const fn healthy_only(mut self) -> Self {
        self.healthy_only = true;
        self
    }
}

/// Returns whether an instance matches each part of the filter, as the registry decides it.
pub(super) fn matches(filter: &Filter, endpoint: &Endpoint) -> bool {
    let instance = endpoint.instance();
    let one_of = |wanted: &[String], found| wanted.is_empty() || wanted.contains(found);
    let has = |(key, value)| instance.metadata.get(key) == Some(value);
    one_of(&filter.zones, &instance.zone)
        && one_of(&filter.versions, &instance.version)
        && filter.metadata.iter().all(has)
}
