//! The routes: which request goes to which service. Pure, and the same for all requests until there
//! is another table; it must never make a request wait or allocate for a route that is written
//! down.

mod host;
mod methods;
mod path;
mod route;
mod tree;
pub(crate) mod unusual;

use std::{borrow::Cow, sync::Arc, time::Duration};

use http::{HeaderValue, Method};
use waypost_core::model::Name;

use self::{host::without_port, path::decoded, tree::Tree};
pub use self::{
    host::{HostPattern, HostPatternError},
    methods::Methods,
    path::{PathError, PathPrefix},
    route::{Access, KeySource, Prefix, Rate, Route},
};

/// Finds the route of a request.
///
/// ```
/// use std::time::Duration;
/// use http::Method;
/// use waypost_gateway::routes::{Found, Implicit, Prefix, Route, RouteTable};
///
/// let timeout = Duration::from_secs(30);
/// let mut orders = Route::to("orders".parse()?, timeout);
/// orders.path = "/v1/orders".parse()?;
/// orders.prefix = Prefix::Stripped;
/// let table = RouteTable::new([orders], Implicit::Routed { timeout });
///
/// let Found::Route { route, path } = table.find(None, "/v1/orders/7", &Method::GET) else { panic!() };
/// assert_eq!((route.service.as_str(), &*path), ("orders", "/7"));
/// // Nothing is written down for this one.
/// let Found::Implicit { service, path, .. } = table.find(None, "/stock/7", &Method::GET) else { panic!() };
/// assert_eq!((service.as_str(), path), ("stock", "/7"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteTable {
    /// In the order in which they were written down.
    routes: Vec<Arc<Route>>,
    /// In order of their hosts.
    exact: Vec<(Box<str>, Tree)>,
    /// In order of the names that the hosts are below.
    below: Vec<(Box<str>, Tree)>,
    any: Tree,
    implicit: Implicit,
}

/// Whether there is a way to services that no route leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Implicit {
    /// The first segment of the path names the service, and is taken away.
    Routed {
        /// The time until the head of the answer is there.
        timeout: Duration,
    },
    /// There is none. The default.
    #[default]
    Off,
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Found<'a> {
    /// It goes by a route that was written down.
    Route {
        /// The route.
        route: &'a Arc<Route>,
        /// The path that the instance is asked for. Begins with `/`.
        path: Cow<'a, str>,
    },
    /// It goes by the implicit way.
    Implicit {
        /// Whose instances answer. Nothing is known of it but that its name is valid.
        service: Name,
        /// The time until the head of the answer is there.
        timeout: Duration,
        /// The path that the instance is asked for. Begins with `/`.
        path: &'a str,
    },
    /// There are routes for its host and path, though none for its method.
    MethodNotAllowed {
        /// The methods that there are routes for, as the header `Allow` has them.
        allow: &'a HeaderValue,
    },
    /// It leads nowhere.
    None,
}

impl RouteTable {
    /// A table of `routes`. Of two for the same requests the first has them.
    #[must_use]
    pub fn new(routes: impl IntoIterator<Item = Route>, implicit: Implicit) -> Self {
        let mut table = Self { implicit, ..Self::default() };
        for route in routes.into_iter().map(Arc::new) {
            let tree = match &route.host {
                HostPattern::Exact(host) => tree_of(&mut table.exact, host),
                HostPattern::Below(name) => tree_of(&mut table.below, name),
                HostPattern::Any => &mut table.any,
            };
            tree.insert(Arc::clone(&route));
            table.routes.push(route);
        }
        table
    }

    /// The routes that were written down, in that order.
    #[must_use]
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// Whether there is a way to services that no route leads to.
    #[must_use]
    pub fn implicit(&self) -> Implicit {
        self.implicit
    }

    /// What becomes of a request for `path`, its raw path (percent-encoded, without the query). Its
    /// segments are decoded to be compared, and where no route is for one with its parameters (`;v=1`),
    /// they are left away; what the instance is asked for stays as it came. Of `host` (`Host`, or the URI's authority) case and port say nothing.
    ///
    /// Among the routes for its host and path those count that say most about it: that name the host
    /// rather than what it is below, a longer name that it is below rather than a shorter one, and
    /// either rather than no host; with the same host the longest path. If none of those that count
    /// takes the method, it is not allowed, even where a less particular route takes it. Where there
    /// is no route for host and path, the implicit way is taken, if there is one.
    #[must_use]
    pub fn find<'a>(&'a self, host: Option<&str>, path: &'a str, method: &Method) -> Found<'a> {
        if !path.starts_with('/') {
            return Found::None;
        }
        let place =
            self.trees(without_port(host.unwrap_or_default())).find_map(|tree| tree.find(path));
        match place.map(|place| place.route(method)) {
            Some(Ok(route)) => Found::Route { path: route.asked(path), route },
            Some(Err(allow)) => Found::MethodNotAllowed { allow },
            None => self.find_implicit(path),
        }
    }

    /// Returns true where an instance could read a path as one of another route than `route`, the one that
    /// was [found](Self::find) for it: many decode `%2F` before they look for segments, or drop empty
    /// segments. A path that decodes or drops only some of them leads to the route of one of these two
    /// readings, or to one between them.
    #[must_use]
    pub fn is_ambiguous(
        &self,
        host: Option<&str>,
        path: &str,
        method: &Method,
        route: &Arc<Route>,
    ) -> bool {
        match self.find(host, &path::normalized(path), method) {
            Found::Route { route: other, .. } => !Arc::ptr_eq(other, route),
            _ => true,
        }
    }

    /// Those for a host, the most particular first.
    fn trees(&self, host: &str) -> impl Iterator<Item = &Tree> {
        let below = host::parents(host).filter_map(|name| search(&self.below, name));
        search(&self.exact, host).into_iter().chain(below).chain([&self.any])
    }

    fn find_implicit<'a>(&self, path: &'a str) -> Found<'a> {
        let Implicit::Routed { timeout } = self.implicit else { return Found::None };
        let trimmed = path.strip_prefix('/').unwrap_or(path);
        let (segment, rest) = trimmed.split_at(trimmed.find('/').unwrap_or(trimmed.len()));
        let Ok(service) = decoded(segment).parse() else { return Found::None };
        let path = if rest.is_empty() { "/" } else { rest };
        Found::Implicit { service, timeout, path }
    }
}

/// The tree of a host among those that are in order.
fn search<'a>(trees: &'a [(Box<str>, Tree)], host: &str) -> Option<&'a Tree> {
    let at = trees.binary_search_by(|(known, _)| host::compare(known, host)).ok()?;
    Some(&trees[at].1)
}

/// The same; there is one afterwards.
fn tree_of<'a>(trees: &'a mut Vec<(Box<str>, Tree)>, host: &str) -> &'a mut Tree {
    let at = trees.binary_search_by(|(known, _)| host::compare(known, host)).unwrap_or_else(|at| {
        trees.insert(at, (host.into(), Tree::default()));
        at
    });
    &mut trees[at].1
}

#[cfg(test)]
mod tests;
