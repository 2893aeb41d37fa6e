//! The routes: which requests go to which service. A table of routes is built from the
//! configuration; the patterns of hosts and paths and the methods are the parts of a route.

mod host;
mod methods;
mod path;
mod route;
mod table;
#[cfg(test)]
mod tests;
mod tree;
pub(crate) mod unusual;

pub(crate) use self::{
    host::HostPattern,
    methods::Methods,
    path::PathPrefix,
    route::{Access, KeySource, Prefix, Rate, Route},
    table::{Implicit, RouteMatch, RouteTable},
};
