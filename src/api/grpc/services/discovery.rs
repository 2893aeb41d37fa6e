//! The service `waypost.v1.Discovery`, for callers of services.

use std::sync::Arc;

use futures_util::stream::{self, Empty};
use tonic::{Request, Response, Status, metadata::MetadataValue};
use waypost_auth::policy::Sight;

use super::CallerSource;
use crate::{
    api::grpc::{
        error,
        message::{
            RequestParser, ResolveResponse, ResponseTooLarge, StatusSelection, WatchResponse,
            cursor_from_wire, cursor_to_wire,
        },
        proto::{self, discovery_server::Discovery},
        stream::OpenedWatch,
    },
    auth::{WatchScope, WatchTarget},
    engine::{Engine, ServiceSummary},
    model::{Limits, services_in_page},
};

#[derive(Debug)]
pub(super) struct DiscoveryApi {
    engine: Engine,
    limits: Arc<Limits>,
    callers: CallerSource,
}

impl DiscoveryApi {
    pub(super) fn new(engine: Engine, limits: Arc<Limits>, callers: CallerSource) -> Self {
        Self { engine, limits, callers }
    }
}

#[tonic::async_trait]
impl Discovery for DiscoveryApi {
    async fn resolve(
        &self,
        request: Request<proto::ResolveRequest>,
    ) -> Result<Response<ResolveResponse>, Status> {
        let caller = self.callers.caller(&request)?;
        let request = request.into_inner();
        let mut parser = RequestParser::new(&self.limits);
        let key = parser.service("", &request.namespace, &request.service);
        let page = parser.page(request.page_size, &request.page_token, key.as_ref());
        let filter = parser.filter(request.filter);
        let (Some(key), Some(page), Some(filter)) = (key, page, filter) else {
            return Err(parser.violations.into_status());
        };
        let selection =
            if request.all_statuses { StatusSelection::All } else { StatusSelection::Serving };
        let permit = caller.discover(key).map_err(error::refused)?;
        let (service, cursor) = self.engine.service(&permit);
        let service = service.as_deref();
        let response = match page {
            None => ResolveResponse::whole(service, &filter, selection, cursor)
                .map_err(|ResponseTooLarge| error::response_too_large())?,
            Some(page) => ResolveResponse::page(service, &filter, selection, cursor, &page),
        };
        Ok(Response::new(response))
    }

    async fn list_services(
        &self,
        request: Request<proto::ListServicesRequest>,
    ) -> Result<Response<proto::ListServicesResponse>, Status> {
        let caller = self.callers.caller(&request)?;
        let request = request.into_inner();
        let mut parser = RequestParser::new(&self.limits);
        let namespace = parser.namespace("namespace", &request.namespace);
        // The token is the last name of the page before, which is valid while services change.
        let after = match request.page_token.as_str() {
            "" => None,
            token => parser.name("page_token", token),
        };
        let Some(namespace) = namespace.filter(|_| parser.violations.is_empty()) else {
            return Err(parser.violations.into_status());
        };
        let size = services_in_page(request.page_size);
        let permit = caller.list(namespace).map_err(error::refused)?;
        let sight = permit.act().sight().clone();
        let (page, last, cursor) = self.engine.services(&permit, after.as_ref(), size);
        let mut response = Response::new(proto::ListServicesResponse {
            next_page_token: last.map(|last| last.to_string()).unwrap_or_default(),
            services: page.iter().map(summary_to_wire).collect(),
            cursor: Some(cursor_to_wire(cursor)),
        });
        mark_part(&mut response, &sight);
        Ok(response)
    }

    type WatchStream = Empty<Result<WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = self.callers.caller(&request)?;
        let request = request.into_inner();
        let mut parser = RequestParser::new(&self.limits);
        let namespace = parser.namespace("namespace", &request.namespace);
        let services = parser.watched_services(namespace.as_ref(), &request.services);
        let filter = parser.filter(request.filter);
        let (Some(namespace), Some(services), Some(filter)) = (namespace, services, filter) else {
            return Err(parser.violations.into_status());
        };
        let subjects = if services.is_empty() {
            WatchTarget::Namespace(namespace)
        } else {
            WatchTarget::Services(services.into_iter().map(Arc::new).collect())
        };
        let resume = request.resume.as_ref().and_then(cursor_from_wire);
        // Before the decision: an epoch that begins meanwhile is met by the open watch.
        let epoch = caller.epoch();
        let permit = caller.watch(subjects).map_err(error::refused)?;
        // The dispatcher replaces the body by that of the watch.
        let mut response = Response::new(stream::empty());
        if let WatchScope::Namespace(_, sight) = permit.act() {
            mark_part(&mut response, sight);
        }
        let watch = self.engine.watch(permit, filter, resume);
        response.extensions_mut().insert(OpenedWatch::new(watch, caller, epoch));
        Ok(response)
    }
}

/// Marks a response that has only the visible services of a namespace.
fn mark_part<T>(response: &mut Response<T>, sight: &Sight) {
    if !sight.is_whole() {
        response.metadata_mut().insert("waypost-visible", MetadataValue::from_static("part"));
    }
}

fn summary_to_wire(summary: &ServiceSummary) -> proto::ServiceSummary {
    proto::ServiceSummary {
        namespace: summary.key.namespace.to_string(),
        name: summary.key.service.to_string(),
        instances: u32::try_from(summary.instances).unwrap_or(u32::MAX),
        up: u32::try_from(summary.serving).unwrap_or(u32::MAX),
    }
}
