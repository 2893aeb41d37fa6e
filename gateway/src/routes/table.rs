//! The table of routes, by host, path and method. Pure: a table never changes.
//! Invariant: the lookup of a configured route locks and allocates nothing.

use std::{borrow::Cow, sync::Arc, time::Duration};

use http::{HeaderValue, Method};
use waypost_core::model::Name;

use super::{
    host::{self, HostPattern, without_port},
    path::{self, decoded},
    route::Route,
    tree::PathTree,
};

/// The routes of a configuration, by host, path and method.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RouteTable {
    /// In the order of the configuration.
    routes: Vec<Arc<Route>>,
    /// Ordered by host.
    exact: Vec<(Box<str>, PathTree)>,
    /// Ordered by the parent name of the hosts.
    below: Vec<(Box<str>, PathTree)>,
    any: PathTree,
    implicit: Implicit,
}

/// Implicit routing: to services that no route is configured for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Implicit {
    /// The first segment of the path names the service, and is stripped.
    Routed {
        /// The time until the head of the response.
        timeout: Duration,
    },
    /// Requests without a configured route are refused. The default.
    #[default]
    Off,
}

/// The result of a lookup.
#[derive(Clone, Debug)]
pub(crate) enum RouteMatch<'a> {
    /// A configured route.
    Route {
        /// The route.
        route: &'a Arc<Route>,
        /// The path for the instance. Begins with `/`.
        path: Cow<'a, str>,
    },
    /// Implicit routing.
    Implicit {
        /// The service. Only its name is known to be valid.
        service: Name,
        /// The time until the head of the response.
        timeout: Duration,
        /// The path for the instance. Begins with `/`.
        path: &'a str,
    },
    /// Routes match the host and path, but not the method.
    MethodNotAllowed {
        /// The methods of those routes, as the value of `Allow`.
        allow: &'a HeaderValue,
    },
    /// No route.
    None,
}

impl RouteTable {
    /// A table of `routes`. Of two routes for the same requests, the first gets them.
    pub(crate) fn new(routes: impl IntoIterator<Item = Route>, implicit: Implicit) -> Self {
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

    /// Returns the configured routes, in order.
    pub(crate) fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// Returns the mode of implicit routing.
    #[cfg(test)]
    pub(crate) fn implicit(&self) -> Implicit {
        self.implicit
    }

    /// Finds the route of a request by its raw `path` (percent-encoded, without the query).
    /// Segments are decoded to compare them, and compared without their parameters (`;v=1`) where
    /// no route has them; the path for the instance stays raw. The case and port of `host` (`Host`,
    /// or the URI's authority) are ignored.
    ///
    /// The most specific routes count: an exact host before a wildcard, a longer wildcard before a
    /// shorter one, a wildcard before any host; of one host the longest path. If none of those has
    /// the method, it is not allowed, even where a less specific route has it. Implicit routing
    /// follows where no route has the host and path.
    pub(crate) fn find<'a>(
        &'a self,
        host: Option<&str>,
        path: &'a str,
        method: &Method,
    ) -> RouteMatch<'a> {
        if !path.starts_with('/') {
            return RouteMatch::None;
        }
        let node =
            self.trees(without_port(host.unwrap_or_default())).find_map(|tree| tree.find(path));
        match node.map(|node| node.route(method)) {
            Some(Ok(route)) => RouteMatch::Route { path: route.upstream_path(path), route },
            Some(Err(allow)) => RouteMatch::MethodNotAllowed { allow },
            None => self.find_implicit(path),
        }
    }

    /// Returns true where an instance could read a path as one of another route than `route`, which
    /// was [found](Self::find) for it: many decode `%2F` before they split segments, or drop empty
    /// segments. A reader that decodes or drops only some of them arrives at the route of one of
    /// the two readings, or at one between them.
    pub(crate) fn is_ambiguous(
        &self,
        host: Option<&str>,
        path: &str,
        method: &Method,
        route: &Arc<Route>,
    ) -> bool {
        match self.find(host, &path::normalized(path), method) {
            RouteMatch::Route { route: other, .. } => !Arc::ptr_eq(other, route),
            _ => true,
        }
    }

    /// Returns the trees for a host, the most specific first.
    fn trees(&self, host: &str) -> impl Iterator<Item = &PathTree> {
        let below = host::parents(host).filter_map(|name| search(&self.below, name));
        search(&self.exact, host).into_iter().chain(below).chain([&self.any])
    }

    fn find_implicit<'a>(&self, path: &'a str) -> RouteMatch<'a> {
        let Implicit::Routed { timeout } = self.implicit else { return RouteMatch::None };
        let trimmed = path.strip_prefix('/').unwrap_or(path);
        let (segment, rest) = trimmed.split_at(trimmed.find('/').unwrap_or(trimmed.len()));
        let Ok(service) = decoded(segment).parse() else { return RouteMatch::None };
        let path = if rest.is_empty() { "/" } else { rest };
        RouteMatch::Implicit { service, timeout, path }
    }
}

/// Finds the tree of a host.
fn search<'a>(trees: &'a [(Box<str>, PathTree)], host: &str) -> Option<&'a PathTree> {
    let at = trees.binary_search_by(|(known, _)| host::compare(known, host)).ok()?;
    Some(&trees[at].1)
}

/// Finds the tree of a host, or inserts an empty one.
fn tree_of<'a>(trees: &'a mut Vec<(Box<str>, PathTree)>, host: &str) -> &'a mut PathTree {
    let at = trees.binary_search_by(|(known, _)| host::compare(known, host)).unwrap_or_else(|at| {
        trees.insert(at, (host.into(), PathTree::default()));
        at
    });
    &mut trees[at].1
}
