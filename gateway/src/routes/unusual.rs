//! Requests that only some routes pass on: with a method beyond the usual ones, or an ambiguous
//! path. Pure.
//! Must not let such a request take a route that an instance could read as another one.

use http::{StatusCode, request::Parts};

use super::{Found, Methods, RouteTable};
use crate::guard::{self, PathFeatures, Refused, Unusual};

/// Checks what is unusual about a request: its route has to name its method, and has to allow what its path
/// holds. Every reading of such a path has to lead to that route: otherwise it would get around the
/// authentication of a route below.
pub(crate) fn check(
    routes: &RouteTable,
    host: Option<&str>,
    head: &Parts,
    unusual: Unusual,
    found: &Found<'_>,
) -> Result<(), Refused> {
    let bad = |reason| Err(Refused::new(StatusCode::BAD_REQUEST, reason));
    let (route, path) = match found {
        Found::Route { route, path } => (route, path),
        // Some routes for this path name their methods, and this one is not among them.
        Found::MethodNotAllowed { .. } => {
            return unusual.path.check_allowed(PathFeatures::default());
        }
        Found::Implicit { .. } | Found::None if unusual.method => {
            return Err(guard::METHOD_NOT_SERVED);
        }
        Found::Implicit { .. } | Found::None => {
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
        return bad("the path that the instance would get begins with two slashes");
    }
    Ok(())
}
