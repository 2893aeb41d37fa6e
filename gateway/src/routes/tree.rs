//! The routes of one set of hosts, by the segments of their paths. A lookup takes no more steps
//! than the longest path of a route has segments, however long the request's is, and allocates
//! nothing for those that are not percent-encoded.

use std::sync::Arc;

use http::{HeaderValue, Method};

use super::{
    Methods, Route,
    path::{decoded, without_parameters},
};

/// What follows a path that some routes have in common.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Tree {
    place: Option<Place>,
    /// By their segment, in order.
    children: Vec<(Box<str>, Self)>,
}

/// The routes of one path.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    routes: Vec<Arc<Route>>,
    /// The methods of them all, as the header `Allow` has them.
    allow: HeaderValue,
}

impl Tree {
    /// Adds a route. Where others are for the same requests, they stay before it.
    pub(super) fn insert(&mut self, route: Arc<Route>) {
        let place = {
            let mut tree = self;
            for segment in route.path.segments() {
                tree = tree.child_or_insert(segment);
            }
            &mut tree.place
        };
        let mut routes = place.take().map_or_else(Vec::new, |place| place.routes);
        routes.push(route);
        *place = Some(Place { allow: allow(&routes), routes });
    }

    /// The place with the longest path that `path` begins with, by whole segments. However these are
    /// spelled: a route that asks who calls must not be got around by another spelling.
    pub(super) fn find(&self, path: &str) -> Option<&Place> {
        let mut found = self.place.as_ref();
        let mut tree = self;
        for segment in path.split('/').skip(1) {
            let segment = decoded(segment);
            let at = tree.search(&segment).or_else(|_| tree.search(without_parameters(&segment)));
            let Ok(at) = at else { break };
            tree = &tree.children[at].1;
            found = tree.place.as_ref().or(found);
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

impl Place {
    /// The route for a method, or else the methods that there are routes for.
    pub(super) fn route(&self, method: &Method) -> Result<&Arc<Route>, &HeaderValue> {
        self.routes.iter().find(|route| route.methods.contain(method)).ok_or(&self.allow)
    }
}

/// The methods of some routes; empty where one is for all.
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
