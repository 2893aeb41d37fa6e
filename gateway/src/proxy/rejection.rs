//! Responses to requests that hyper refuses, which [`serve`](super::serve) never gets. They are
//! logged and counted as others are.

use std::{net::SocketAddr, sync::Arc};

use http::{HeaderMap, StatusCode, Version};
use waypost_serving::correlation::Correlation;

use crate::{
    clock,
    gateway::Gateway,
    observe::{RequestRecord, SentBody},
    problem::Problem,
    server::Rejected,
};

/// Returns the function that responds to refused requests.
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
        // The response before a stream reset has no data.
        Version::HTTP_2 => Vec::new(),
        _ => problem.document(correlation.request_id_text()),
    };
    let sent = SentBody { bytes: document.len() as u64, complete: true };
    let record = RequestRecord::unparsed(peer, version, &correlation);
    gateway.log_refused(&record, &problem, sent);
    Rejected { request_id: correlation.request_id().clone(), document }
}
