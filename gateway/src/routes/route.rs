//! One route: its requests, their service, and how they are sent. Plain data.

use std::{borrow::Cow, num::NonZeroU32, time::Duration};

use http::{HeaderName, Method};
use waypost_client::{Filter, Policy};
use waypost_core::model::Name;

use crate::guard::PathFeatures;

use super::{host::HostPattern, methods::Methods, path::PathPrefix};

/// A route from requests to a service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Route {
    /// The name in the configuration, if any.
    pub(crate) given_name: Option<Name>,
    /// The hosts of the requests.
    pub(crate) host: HostPattern,
    /// The prefix of the requests' paths.
    pub(crate) path: PathPrefix,
    /// The unusual features that paths may have. Default: none.
    pub(crate) path_features: PathFeatures,
    /// The methods of the requests.
    pub(crate) methods: Methods,
    /// The service that gets the requests.
    pub(crate) service: Name,
    /// The change of [`path`](Self::path) for the instance.
    pub(crate) prefix: Prefix,
    /// The instances that get requests. Default: all.
    pub(crate) filter: Filter,
    /// The balancing policy.
    pub(crate) policy: Policy,
    /// The source of the key for [`Policy::Rendezvous`]; `None` for every other policy.
    pub(crate) key: Option<KeySource>,
    /// The time from the end of the request's body to the head of the response. Never 0. Default:
    /// `limits.timeout`.
    pub(crate) timeout: Duration,
    /// The retries of a request that [may be replayed](Self::may_replay): after a failure, or, if
    /// its method is safe (RFC 9110, section 9.2.1), also while its instance is silent. Default: 1.
    pub(crate) retries: u32,
    /// True where requests of every method may be replayed. Default: false.
    pub(crate) idempotent: bool,
    /// The delay after which a request goes to a second instance as well. Never 0. Default: no
    /// hedging.
    pub(crate) hedge: Option<Duration>,
    /// The concurrent requests of an instance, at most. Default: no limit.
    pub(crate) in_flight: Option<NonZeroU32>,
    /// True for HTTP/2 to instances, with prior knowledge. Default: HTTP/1.1.
    pub(crate) http2: bool,
    /// The access of clients.
    pub(crate) auth: Access,
    /// The rate limit of each client. Default: no limit.
    pub(crate) rate: Option<Rate>,
}

/// The change of a path's prefix on the way to an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Prefix {
    /// The prefix stays. The default.
    #[default]
    Kept,
    /// The prefix is removed.
    Stripped,
    /// The prefix is replaced by another.
    Replaced(PathPrefix),
}

/// The source of a request's key: requests with the same key go to the same instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeySource {
    /// The value of a header.
    Header(HeaderName),
    /// The client: its identity, or else its address.
    Client,
}

/// The access of clients to a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Access {
    /// Every client; credentials are ignored. The default.
    #[default]
    Open,
    /// Every client without credentials, or with valid ones.
    Optional,
    /// Clients with valid credentials and all of these scopes.
    Required {
        /// The scopes. May be empty.
        scopes: Vec<String>,
    },
}

/// The rate limit of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// The sustained requests a second.
    pub(crate) per_second: NonZeroU32,
    /// The requests at once.
    pub(crate) burst: NonZeroU32,
}

impl Route {
    /// The default of [`retries`](Self::retries).
    pub(crate) const RETRIES: u32 = 1;

    /// A route for all requests to a service, with `timeout` and defaults.
    pub(crate) fn to(service: Name, timeout: Duration) -> Self {
        Self {
            given_name: None,
            host: HostPattern::Any,
            path: PathPrefix::default(),
            path_features: PathFeatures::default(),
            methods: Methods::All,
            service,
            prefix: Prefix::Kept,
            filter: Filter::default(),
            policy: Policy::default(),
            key: None,
            timeout,
            retries: Self::RETRIES,
            idempotent: false,
            hedge: None,
            in_flight: None,
            http2: false,
            auth: Access::Open,
            rate: None,
        }
    }

    /// Returns its name, or else that of its service.
    pub(crate) fn name(&self) -> &Name {
        self.given_name.as_ref().unwrap_or(&self.service)
    }

    /// Returns true for a request that may reach instances more than once: its method is idempotent
    /// (RFC 9110, section 9.2.2), or the route is.
    pub(crate) fn may_replay(&self, method: &Method) -> bool {
        self.idempotent || method.is_idempotent()
    }

    /// Returns the prefix that is removed, in the route's spelling: prepended to paths of the
    /// instance, it leads back to it. Empty where the prefix stays or is replaced.
    pub(crate) fn stripped_prefix(&self) -> &str {
        let is_stripped = match &self.prefix {
            Prefix::Kept => false,
            Prefix::Stripped => true,
            Prefix::Replaced(prefix) => prefix.is_root(),
        };
        if is_stripped { self.path.as_str() } else { "" }
    }

    /// Returns the path for an instance, for a request's path with the prefix.
    pub(super) fn upstream_path<'a>(&'a self, path: &'a str) -> Cow<'a, str> {
        match &self.prefix {
            Prefix::Kept => Cow::Borrowed(path),
            Prefix::Stripped => match self.path.rest(path) {
                "" => Cow::Borrowed("/"),
                rest => Cow::Borrowed(rest),
            },
            Prefix::Replaced(prefix) => prefix.before(self.path.rest(path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route() -> Route {
        let service = "orders".parse().expect("a name");
        let path = "/v1/orders".parse().expect("a path");
        Route { path, ..Route::to(service, Duration::from_secs(30)) }
    }

    #[test]
    fn a_route_without_a_name_has_that_of_its_service() {
        let named = Route { given_name: "reads".parse().ok(), ..route() };
        assert_eq!(route().name().as_str(), "orders");
        assert_eq!(named.name().as_str(), "reads");
    }

    #[test]
    fn the_prefix_is_kept_stripped_or_replaced() {
        let replaced = |text: &str| Prefix::Replaced(text.parse().expect("a path"));
        for (prefix, whole, longer, slash) in [
            (Prefix::Kept, "/v1/orders", "/v1/orders/7", "/v1/orders/"),
            (Prefix::Stripped, "/", "/7", "/"),
            (replaced("/in"), "/in", "/in/7", "/in/"),
            (replaced("/"), "/", "/7", "/"),
        ] {
            let route = Route { prefix, ..route() };
            let stripped = if longer == "/7" { "/v1/orders" } else { "" };
            assert_eq!(route.stripped_prefix(), stripped);
            assert_eq!(route.upstream_path("/v1/orders"), whole);
            assert_eq!(route.upstream_path("/v1/orders/7"), longer);
            assert_eq!(route.upstream_path("/v1/orders/"), slash);
        }
    }

    #[test]
    fn only_idempotent_requests_are_replayed_unless_the_route_is_idempotent() {
        let all = Route { idempotent: true, ..route() };
        for (method, repeats) in [
            (Method::GET, true),
            (Method::HEAD, true),
            (Method::OPTIONS, true),
            (Method::TRACE, true),
            (Method::PUT, true),
            (Method::DELETE, true),
            (Method::POST, false),
            (Method::PATCH, false),
            (Method::CONNECT, false),
        ] {
            assert_eq!(route().may_replay(&method), repeats, "{method}");
            assert!(all.may_replay(&method));
        }
    }
}
