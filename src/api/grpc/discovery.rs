//! `waypost.v1.Discovery`: what callers of services use.

use std::sync::Arc;

use futures_util::stream::{self, Empty};
use tonic::{Request, Response, Status};

use super::{
    convert::{Reader, cursor_from_wire, cursor_to_wire},
    encoded::{ResolveResponse, WatchResponse, Which},
    proto::{self, discovery_server::Discovery},
    watch_body::Opened,
};
use crate::{
    engine::{Engine, ServiceSummary, Subjects},
    model::Limits,
};

/// Services in a page of those who name no size.
const PAGE_SIZE_DEFAULT: u32 = 100;
/// Services in a page at most.
const PAGE_SIZE_MAX: u32 = 1000;

#[derive(Debug)]
pub(super) struct DiscoveryApi {
    engine: Engine,
    limits: Arc<Limits>,
}

impl DiscoveryApi {
    pub(super) fn new(engine: Engine, limits: Arc<Limits>) -> Self {
        Self { engine, limits }
    }
}

#[tonic::async_trait]
impl Discovery for DiscoveryApi {
    async fn resolve(
        &self,
        request: Request<proto::ResolveRequest>,
    ) -> Result<Response<ResolveResponse>, Status> {
        let request = request.into_inner();
        let mut reader = Reader::new(&self.limits);
        let key = reader.service("", &request.namespace, &request.service);
        let Some((key, filter)) = key.zip(reader.filter(request.filter)) else {
            return Err(reader.violations.into_status());
        };
        let which = if request.all_statuses { Which::All } else { Which::Serving };
        let (service, cursor) = self.engine.service(&key);
        let chunks = service.as_ref().map(|service| service.roster.chunks()).unwrap_or_default();
        Ok(Response::new(ResolveResponse::new(chunks, &filter, which, cursor)))
    }

    async fn list_services(
        &self,
        request: Request<proto::ListServicesRequest>,
    ) -> Result<Response<proto::ListServicesResponse>, Status> {
        let request = request.into_inner();
        let mut reader = Reader::new(&self.limits);
        let namespace = reader.namespace("namespace", &request.namespace);
        let size = match request.page_size {
            0 => PAGE_SIZE_DEFAULT,
            size => size,
        };
        if size > PAGE_SIZE_MAX {
            reader.violations.bad("page_size", "must be at most 1000");
        }
        // The token is the last name of the page before, so that pages hold while services change.
        let after = match request.page_token.as_str() {
            "" => None,
            token => reader.name("page_token", token),
        };
        let Some(namespace) = namespace.filter(|_| reader.violations.is_empty()) else {
            return Err(reader.violations.into_status());
        };
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let (page, cursor) = self.engine.services(&namespace, after.as_ref(), size);
        let next = page.last().filter(|_| page.len() == size);
        Ok(Response::new(proto::ListServicesResponse {
            next_page_token: next.map(|last| last.key.service.to_string()).unwrap_or_default(),
            services: page.iter().map(summary_to_wire).collect(),
            cursor: Some(cursor_to_wire(cursor)),
        }))
    }

    type WatchStream = Empty<Result<WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let mut reader = Reader::new(&self.limits);
        let namespace = reader.namespace("namespace", &request.namespace);
        let services = reader.watched_services(namespace.as_ref(), &request.services);
        let filter = reader.filter(request.filter);
        let (Some(namespace), Some(services), Some(filter)) = (namespace, services, filter) else {
            return Err(reader.violations.into_status());
        };
        let subjects = if services.is_empty() {
            Subjects::Namespace(namespace)
        } else {
            Subjects::Services(services.into_iter().map(Arc::new).collect())
        };
        let resume = request.resume.as_ref().and_then(cursor_from_wire);
        // What it tells comes in a body of its own, in place of the stream's.
        let mut response = Response::new(stream::empty());
        response.extensions_mut().insert(Opened::new(self.engine.watch(subjects, filter, resume)));
        Ok(response)
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
