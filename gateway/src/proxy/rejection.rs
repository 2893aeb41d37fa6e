//! The answers to requests that the HTTP library refused, which never reach the [proxy](crate::proxy).
//! Such a request is logged and counted as others are.

use std::{net::SocketAddr, sync::Arc};

use http::{HeaderMap, StatusCode, Version};
use waypost_serving::correlation::Correlation;

use crate::{
    clock,
    gateway::Gateway,
    observe::access_log::{Entry, Sent},
    problem::Problem,
    server::Rejected,
};

/// Returns what answers the refused requests of a gateway.
pub(crate) fn by(
    gateway: &Arc<Gateway>,
) -> impl Fn(SocketAddr, StatusCode, Version) -> Rejected + Clone + Send + Sync + use<> {
    let gateway = Arc::clone(gateway);
    move |peer, status, version| reject(&gateway, peer, status, version)
}

fn reject(gateway: &Gateway, peer: SocketAddr, status: StatusCode, version: Version) -> Rejected {
    let detail = match status {
        StatusCode::URI_TOO_LONG => "the target is too long",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "the header is too large",
        _ => "the request is not valid HTTP: its method, target, version or a field is malformed",
    };
    let correlation = Correlation::establish(&mut HeaderMap::new(), clock::wall_now);
    let problem = Problem::new(status, "Refused", detail);
    let document = match version {
        // No data goes with the answer to a stream that is reset.
        Version::HTTP_2 => Vec::new(),
        _ => problem.document(correlation.request_id_text()),
    };
    let sent = Sent { bytes: document.len() as u64, complete: true };
    gateway.tell_refused(&Entry::unread(peer, version, &correlation), &problem, sent);
    Rejected { request_id: correlation.request_id().clone(), document }
}
