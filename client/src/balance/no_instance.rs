//! The reasons for which a pick finds no instance.

/// Why there is no instance for a call.
///
/// ```
/// use waypost_client::{NoInstance, PickContext, Service};
///
/// let none = Service::fixed([]).pick(&PickContext::new()).unwrap_err();
/// assert_eq!(none, NoInstance::Empty);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoInstance {
    /// The registry has not told yet: wait for [`Service::ready`](crate::Service::ready).
    #[error("the instances are not known yet")]
    NotReady,
    /// The service has no instances.
    #[error("the service has no instances")]
    Empty,
    /// The service has instances, but none that takes traffic.
    #[error("none of the service's {instances} instances takes traffic")]
    NoneServing {
        /// How many there are.
        instances: usize,
    },
    /// Instances take traffic, but none that the filter of the handle or of the call lets through.
    #[error("none of the service's {serving} instances that take traffic passes the filter")]
    AllFiltered {
        /// How many take traffic.
        serving: usize,
    },
    /// All that would do fail and are left alone, and the call wants
    /// [healthy ones only](PickContext::healthy_only).
    #[error("all of the service's {instances} instances that would do fail")]
    AllEjected {
        /// How many would do.
        instances: usize,
    },
}
