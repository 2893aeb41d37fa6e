//! The balancing policies, and the list of them. A new one is a file here, and an entry of the
//! list.

mod least_request;
mod peak_ewma;
mod random;
mod rendezvous;
mod round_robin;

use std::sync::Arc;

use self::{
    least_request::LeastRequest, peak_ewma::PeakEwma, random::Random, rendezvous::Rendezvous,
    round_robin::RoundRobin,
};
use super::{choice::Choice, no_instance::NoInstance, policy::BalancingPolicy, search::search};
use crate::endpoint::Endpoint;

/// Defines [`Policy`], and the type that dispatches to the policies: each variant has the name of
/// the type that implements it.
macro_rules! policies {
    (
        $(#[$attribute:meta])*
        pub enum $policy:ident {
            $($(#[$variant_attribute:meta])* $name:ident,)*
        }
    ) => {
        $(#[$attribute])*
        pub enum $policy {
            $($(#[$variant_attribute])* $name,)*
        }

        /// A policy of any type. Dispatch is static: one branch for each pick.
        #[derive(Debug)]
        pub(super) enum AnyPolicy {
            $($name($name),)*
        }

        impl AnyPolicy {
            pub(super) fn new(policy: $policy, turn: u64) -> Self {
                match policy {
                    $($policy::$name => Self::$name($name::starting_at(turn)),)*
                }
            }

            pub(super) fn policy(&self) -> $policy {
                match self {
                    $(Self::$name(_) => $policy::$name,)*
                }
            }

            #[inline]
            pub(super) fn search<'a, S: Fn(&Endpoint) -> bool>(
                &self,
                choice: &Choice<'a, '_, S>,
            ) -> Result<Option<&'a Arc<Endpoint>>, NoInstance> {
                match self {
                    $(Self::$name(policy) => search(policy, choice),)*
                }
            }
        }
    };
}

policies! {
    /// A way to spread calls over the instances of a service.
    ///
    /// All policies honour weights (an instance of weight 200 gets twice the calls of one of 100)
    /// and skip instances that take no traffic (weight 0, or a status other than `UP` and
    /// `SUSPECT`).
    ///
    /// All eject an instance that fails: after five failures in a row, or as many failures as
    /// successes among 20 calls and more within 10 s, for 30 s; after a refused connection for a
    /// second; a `SUSPECT` instance after one failure. The time doubles with each repetition (up to
    /// 5 min, or 30 s); then one call probes the instance. While more than half of the instances
    /// are ejected, all are called: the few that are left must not be overloaded.
    ///
    /// ```
    /// use waypost_client::{Policy, Service};
    ///
    /// assert_eq!(Policy::default(), Policy::PeakEwma);
    /// let rotating = Service::fixed([]).with_policy(Policy::RoundRobin);
    /// # drop(rotating);
    /// ```
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum Policy {
        /// The one of two random instances, drawn by weight, that is likely to respond sooner.
        ///
        /// The first one gets the call if it has none in flight and is not clearly slower: an idle
        /// service shares its calls by weight, whatever small differences there are. Otherwise the
        /// call goes to the one with less load, `(calls in flight + 1/2) / weight`, times its
        /// latency if that is clearly worse: more than four times that of the other, and more than
        /// 4 ms.
        ///
        /// The latency is an average of responses. A single slow response at most doubles it;
        /// without further slow responses it decays (1 / e is left after 2.5 s). A failure counts
        /// at once as a slow response; a new instance starts with the median latency of the others.
        /// The time that a caller takes to send its request does not count. Fed by
        /// [`Pick::report`](crate::Pick::report). The default.
        #[default]
        PeakEwma,
        /// The one of two random instances with less load, `(calls in flight + 1/2) / weight` (M.
        /// Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001). The first,
        /// drawn by weight, keeps the call if it has none in flight. For long calls, such as
        /// streams.
        LeastRequest,
        /// A random instance. The most even spread over many callers that share no state.
        Random,
        /// One after the other. The most even spread where all calls cost the same.
        RoundRobin,
        /// The instance that owns the call's [key](crate::PickContext::key), while it has at most
        /// 1.25 times its share of the calls in flight (of all instances, or of a sample of 32);
        /// then the next one for the key.
        ///
        /// All processes choose the same one. An instance that is added or removed moves only its
        /// own keys (weighted rendezvous hashing with bounded load). The keys of an ejected
        /// instance move to the others until it is readmitted, as far as their bounds allow. A pick
        /// takes one or two nanoseconds for each instance. Calls without a key go to random
        /// instances.
        Rendezvous,
    }
}
