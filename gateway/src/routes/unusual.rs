//! Requests that only some routes pass on: with an unusual method or path. Pure.
//! Invariant: such a request takes no route that an instance could read as another one.

use http::{StatusCode, request::Parts};

use super::{
    methods::Methods,
    table::{RouteMatch, RouteTable},
};
use crate::guard::{self, PathFeatures, Refused, Unusual};

/// Checks an unusual request: its route must list its method, and allow the features of its path.
/// Every reading of such a path must lead to that route: otherwise it could bypass the
/// authentication of a route below.
pub(crate) fn check(
    routes: &RouteTable,
    host: Option<&str>,
    head: &Parts,
    unusual: Unusual,
    found: &RouteMatch<'_>,
) -> Result<(), Refused> {
    let bad = |reason| Err(Refused::new(StatusCode::BAD_REQUEST, reason));
    let (route, path) = match found {
        RouteMatch::Route { route, path } => (route, path),
        // Routes for this path list their methods, without this one.
        RouteMatch::MethodNotAllowed { .. } => {
            return unusual.path.check_allowed(PathFeatures::default());
        }
        RouteMatch::Implicit { .. } | RouteMatch::None if unusual.method => {
            return Err(guard::METHOD_NOT_SERVED);
        }
        RouteMatch::Implicit { .. } | RouteMatch::None => {
            return unusual.path.check_allowed(PathFeatures::default());
        }
    };
    if unusual.method && route.methods == Methods::All {
        return Err(guard::METHOD_NOT_SERVED);
    }
    unusual.path.check_allowed(route.path_features)?;
    if unusual.path == PathFeatures::default() {
        return Ok(());
    }
    if routes.is_ambiguous(host, head.uri.path(), &head.method, route) {
        return bad("the path could be read as one of another route");
    }
    // RFC 3986, 4.2: a reference to another host.
    if path.starts_with("//") {
        return bad("the path for the instance begins with two slashes");
    }
    Ok(())
}
