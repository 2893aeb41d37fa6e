//! The reasons for which a pick finds no instance.

/// The reason why there is no instance for a call.
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
    /// The first view has not arrived: wait for [`Service::ready`](crate::Service::ready).
    #[error("the instances are still loading")]
    NotReady,
    /// The service has no instances.
    #[error("the service has no instances")]
    Empty,
    /// The service has instances, but none that takes traffic.
    #[error("none of the service's {instances} instances takes traffic")]
    NoneServing {
        /// The number of instances.
        instances: usize,
    },
    /// Instances take traffic, but none of them matches the filter of the handle or the call.
    #[error("none of the service's {serving} instances that take traffic matches the filter")]
    AllFiltered {
        /// The number of instances that take traffic.
        serving: usize,
    },
    /// All matching instances are ejected, and the call accepts [healthy ones
    /// only](crate::PickContext::healthy_only).
    #[error("all {instances} matching instances are ejected")]
    AllEjected {
        /// The number of matching instances.
        instances: usize,
    },
}
