//! One route: which requests it is for, whom they go to, and how. It says so, and does nothing.

use std::{borrow::Cow, num::NonZeroU32, time::Duration};

use http::{HeaderName, Method};
use waypost_client::{Filter, Policy};
use waypost_core::model::Name;

use crate::guard::PathFeatures;

use super::{HostPattern, Methods, PathPrefix};

/// A way from requests to a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Its name, where it was given one.
    pub given_name: Option<Name>,
    /// The hosts of the requests.
    pub host: HostPattern,
    /// How the paths of the requests begin.
    pub path: PathPrefix,
    /// What the paths of the requests may hold. Default: nothing that is ambiguous.
    pub path_features: PathFeatures,
    /// The methods of the requests.
    pub methods: Methods,
    /// Whose instances answer.
    pub service: Name,
    /// What becomes of [`path`](Self::path) on the way.
    pub prefix: Prefix,
    /// Which of the service's instances answer. Default: all.
    pub filter: Filter,
    /// How an instance is chosen.
    pub policy: Policy,
    /// What requests belong together by. Some exactly where the policy is [`Policy::Rendezvous`].
    pub key: Option<KeySource>,
    /// The time until the head of the answer is there, from the end of the upload. Never 0. Default: that
    /// of all requests.
    pub timeout: Duration,
    /// How often more a request may be sent, if it [may](Self::may_replay): after it failed, or, if its
    /// method is safe (RFC 9110, section 9.2.1), also while its instance is silent. Default: 1.
    pub retries: u32,
    /// All methods may be sent again, whatever HTTP says of them. Default: no.
    pub idempotent: bool,
    /// When a request that is not answered yet goes to a second instance as well. Never 0. Default:
    /// never.
    pub hedge: Option<Duration>,
    /// How many requests an instance has at once, at most. Default: any number.
    pub in_flight: Option<NonZeroU32>,
    /// Instances are spoken to in HTTP/2, without TLS with prior knowledge. Default: in HTTP/1.1.
    pub http2: bool,
    /// Who may.
    pub auth: Access,
    /// How many requests a client may send. Default: any number.
    pub rate: Option<Rate>,
}

/// What becomes of the begin of a path on the way to an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Prefix {
    /// It stays. The default.
    #[default]
    Kept,
    /// It is taken away.
    Stripped,
    /// This takes its place.
    Replaced(PathPrefix),
}

/// What the key of a request is: requests with the same key go to the same instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The value of a header.
    Header(HeaderName),
    /// The client: its identity, or else its address.
    Client,
}

/// Who may send requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Anybody; who it is is not asked. The default.
    #[default]
    Open,
    /// Anybody who says who it is and is right, or who does not say.
    Optional,
    /// Only who says who it is, is right, and has all of these scopes.
    Required {
        /// The scopes. May be empty.
        scopes: Vec<String>,
    },
}

/// How many requests a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In the long run, each second.
    pub per_second: NonZeroU32,
    /// At once.
    pub burst: NonZeroU32,
}

impl Route {
    /// How often more a request may be sent, where nothing is said of it.
    pub const RETRIES: u32 = 1;

    /// A route for all requests to a service, which has the default of all else, and `timeout`.
    #[must_use]
    pub fn to(service: Name, timeout: Duration) -> Self {
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

    /// What it is called: by its own name, or by that of its service.
    #[must_use]
    pub fn name(&self) -> &Name {
        self.given_name.as_ref().unwrap_or(&self.service)
    }

    /// Whether a request may reach instances more than once: it is idempotent, by HTTP's definition of its
    /// method (RFC 9110, section 9.2.2), or by what the route says.
    #[must_use]
    pub fn may_replay(&self, method: &Method) -> bool {
        self.idempotent || method.is_idempotent()
    }

    /// The prefix that is taken away, as the route has it: paths that the instance gets, with this before
    /// them, lead back to it. Empty where nothing is taken away, or something else takes its place.
    #[must_use]
    pub fn stripped_prefix(&self) -> &str {
        let is_stripped = match &self.prefix {
            Prefix::Kept => false,
            Prefix::Stripped => true,
            Prefix::Replaced(prefix) => prefix.is_root(),
        };
        if is_stripped { self.path.as_str() } else { "" }
    }

    /// The path that an instance is asked for, where a request's path begins as the route's.
    pub(super) fn asked<'a>(&'a self, path: &'a str) -> Cow<'a, str> {
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
    fn a_route_without_a_name_is_called_as_its_service() {
        let named = Route { given_name: "reads".parse().ok(), ..route() };
        assert_eq!(route().name().as_str(), "orders");
        assert_eq!(named.name().as_str(), "reads");
    }

    #[test]
    fn the_prefix_is_kept_taken_away_or_replaced() {
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
            assert_eq!(route.asked("/v1/orders"), whole);
            assert_eq!(route.asked("/v1/orders/7"), longer);
            assert_eq!(route.asked("/v1/orders/"), slash);
        }
    }

    #[test]
    fn only_idempotent_requests_repeat_unless_the_route_says_that_all_are() {
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
