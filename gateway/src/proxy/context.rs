//! The surroundings of a request, which stay the same while it is served.

use std::net::SocketAddr;

use http::{Version, header, request::Parts};
use hyper::upgrade::OnUpgrade;
use waypost_serving::correlation::Correlation;

use crate::{
    gateway::Gateway,
    guard::{Refused, Unusual},
    settings::Settings,
};

/// One request's surroundings.
pub(super) struct Context<'a> {
    pub(super) gateway: &'a Gateway,
    /// The version in force when the request came.
    pub(super) settings: &'a Settings,
    pub(super) correlation: &'a Correlation,
    pub(super) peer: SocketAddr,
    /// The guard's result for the head as the caller sent it.
    pub(super) checked: Result<Unusual, Refused>,
    pub(super) is_grpc: bool,
    /// The caller's connection, where the request upgrades it.
    pub(super) upgrade: OnUpgrade,
}

/// Returns true for a gRPC call, which no other version of HTTP carries.
pub(super) fn is_grpc(head: &Parts) -> bool {
    let kind = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    head.version == Version::HTTP_2
        && kind.is_some_and(|kind| {
            let rest = kind.strip_prefix("application/grpc");
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
        })
}
