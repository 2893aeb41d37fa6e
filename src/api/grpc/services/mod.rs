//! The services of `waypost.v1`, dispatched by the service name in the path.

mod admin;
mod discovery;
mod registry;

use std::{convert::Infallible, fmt, future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use tonic::{Status, body::Body, codegen::StdError, server::NamedService};
use tower::Service;

use self::{admin::AdminApi, discovery::DiscoveryApi, registry::RegistryApi};
use super::{
    error,
    proto::{
        admin_server::AdminServer, discovery_server::DiscoveryServer,
        registry_server::RegistryServer,
    },
};
use crate::{
    auth::{Caller, Gate},
    clock::Clock,
    engine::Engine,
    model::Limits,
};

/// The source of the callers of requests.
#[derive(Debug, Clone, Copy)]
enum CallerSource {
    /// There is neither a policy nor an audit log: every caller may do everything.
    Unrestricted,
    /// The gate identified each one, and the dispatcher put it into the request's extensions.
    Identified,
}

impl CallerSource {
    fn of(gate: &Gate) -> Self {
        let is_plain = gate.trust().is_none() && gate.audit().is_none();
        if is_plain { Self::Unrestricted } else { Self::Identified }
    }

    /// Returns the caller of a request.
    fn caller<T>(self, request: &tonic::Request<T>) -> Result<Caller, Status> {
        match self {
            Self::Unrestricted => Ok(Caller::unrestricted()),
            Self::Identified => request.extensions().get().cloned().ok_or_else(error::unidentified),
        }
    }
}

/// A running call.
pub(super) type CallFuture =
    Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// The services that need the engine.
pub(super) struct RegistryServices {
    registry: RegistryServer<RegistryApi>,
    discovery: DiscoveryServer<DiscoveryApi>,
    admin: AdminServer<AdminApi>,
}

impl fmt::Debug for RegistryServices {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RegistryServices").finish_non_exhaustive()
    }
}

impl RegistryServices {
    pub(super) fn new(engine: &Engine, limits: &Arc<Limits>, clock: Clock, gate: &Gate) -> Self {
        let bytes_max = limits.message_bytes_max;
        let registry =
            RegistryApi::new(engine.clone(), Arc::clone(limits), clock, CallerSource::of(gate));
        let discovery =
            DiscoveryApi::new(engine.clone(), Arc::clone(limits), CallerSource::of(gate));
        let admin = AdminApi::new(engine.clone(), Arc::clone(limits), clock, gate.clone());
        Self {
            registry: RegistryServer::new(registry).max_decoding_message_size(bytes_max),
            discovery: DiscoveryServer::new(discovery).max_decoding_message_size(bytes_max),
            admin: AdminServer::new(admin).max_decoding_message_size(bytes_max),
        }
    }

    /// Calls the method in the path, `/service/method`.
    pub(super) fn call<B>(&self, request: Request<B>) -> CallFuture
    where
        B: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
    {
        // Each service is always ready.
        let path = request.uri().path();
        match path.strip_prefix('/').and_then(|path| path.split_once('/')) {
            Some((RegistryServer::<RegistryApi>::NAME, _)) => self.registry.clone().call(request),
            Some((DiscoveryServer::<DiscoveryApi>::NAME, _)) => {
                self.discovery.clone().call(request)
            }
            Some((AdminServer::<AdminApi>::NAME, _)) => self.admin.clone().call(request),
            _ => Box::pin(async { Ok(Status::unimplemented("").into_http()) }),
        }
    }
}
