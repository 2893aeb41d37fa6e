//! The routes of one set of hosts, by the segments of their paths. Pure. A lookup takes no more
//! steps than the longest path of a route has segments, and allocates nothing for segments without
//! percent-encoding.

use std::sync::Arc;

use http::{HeaderValue, Method};

use super::{
    methods::Methods,
    path::{decoded, without_parameters},
    route::Route,
};

/// The routes below a common path.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PathTree {
    node: Option<PathRoutes>,
    /// Ordered by segment.
    children: Vec<(Box<str>, Self)>,
}

/// The routes of one path.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PathRoutes {
    routes: Vec<Arc<Route>>,
    /// The methods of all routes, as the value of `Allow`.
    allow: HeaderValue,
}

impl PathTree {
    /// Adds a route behind those for the same requests.
    pub(super) fn insert(&mut self, route: Arc<Route>) {
        let node = {
            let mut tree = self;
            for segment in route.path.segments() {
                tree = tree.child_or_insert(segment);
            }
            &mut tree.node
        };
        let mut routes = node.take().map_or_else(Vec::new, |node| node.routes);
        routes.push(route);
        *node = Some(PathRoutes { allow: allow(&routes), routes });
    }

    /// Finds the routes of the longest prefix of `path`, by whole segments. Segments match in any
    /// spelling: another spelling must not bypass the route that requires authentication.
    pub(super) fn find(&self, path: &str) -> Option<&PathRoutes> {
        let mut found = self.node.as_ref();
        let mut tree = self;
        for segment in path.split('/').skip(1) {
            let segment = decoded(segment);
            let at = tree.search(&segment).or_else(|_| tree.search(without_parameters(&segment)));
            let Ok(at) = at else { break };
            tree = &tree.children[at].1;
            found = tree.node.as_ref().or(found);
        }
        found
    }

    fn search(&self, segment: &str) -> Result<usize, usize> {
        self.children.binary_search_by(|(known, _)| (**known).cmp(segment))
    }

    fn child_or_insert(&mut self, segment: &str) -> &mut Self {
        let at = self.search(segment).unwrap_or_else(|at| {
            self.children.insert(at, (segment.into(), Self::default()));
            at
        });
        &mut self.children[at].1
    }
}

impl PathRoutes {
    /// Returns the route for a method, or else the methods that have routes.
    pub(super) fn route(&self, method: &Method) -> Result<&Arc<Route>, &HeaderValue> {
        self.routes.iter().find(|route| route.methods.contain(method)).ok_or(&self.allow)
    }
}

/// Returns the methods of routes, as the value of `Allow`; empty where a route has all.
fn allow(routes: &[Arc<Route>]) -> HeaderValue {
    let mut names = Vec::new();
    for route in routes {
        let Methods::These(methods) = &route.methods else {
            return HeaderValue::from_static("");
        };
        names.extend(methods.iter().map(Method::as_str));
    }
    names.sort_unstable();
    names.dedup();
    HeaderValue::try_from(names.join(", ")).expect("the characters of a method are visible")
}
