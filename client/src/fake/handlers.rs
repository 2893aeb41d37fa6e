//! The gRPC methods of the registry in memory.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt, stream};
use tonic::{Request, Response, Status, Streaming};

use super::{shared::SharedState, watch::OpenWatch};
use crate::proto::{self, discovery_server::Discovery, registry_server::Registry};

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The handlers of all methods.
#[derive(Clone, Debug)]
pub(super) struct Handlers {
    pub(super) shared: Arc<SharedState>,
}

#[tonic::async_trait]
impl Registry for Handlers {
    type KeepAliveStream = ResponseStream<proto::KeepAliveResponse>;

    async fn register(
        &self,
        request: Request<proto::RegisterRequest>,
    ) -> Result<Response<proto::RegisterResponse>, Status> {
        let (request, wall) = (request.into_inner(), self.shared.wall());
        self.shared.change(|state| state.register(&request, wall)).map(Response::new)
    }

    async fn heartbeat(
        &self,
        request: Request<proto::HeartbeatRequest>,
    ) -> Result<Response<proto::HeartbeatResponse>, Status> {
        let lease_ids = request.into_inner().lease_ids;
        let unknown_lease_ids = self.shared.change(|state| state.renew(&lease_ids));
        Ok(Response::new(proto::HeartbeatResponse { unknown_lease_ids }))
    }

    async fn keep_alive(
        &self,
        requests: Request<Streaming<proto::KeepAliveRequest>>,
    ) -> Result<Response<Self::KeepAliveStream>, Status> {
        let shared = Arc::clone(&self.shared);
        let responses = requests.into_inner().map(move |request| {
            let lease_ids = request?.lease_ids;
            let unknown_lease_ids = shared.change(|state| state.renew(&lease_ids));
            Ok(proto::KeepAliveResponse { unknown_lease_ids })
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn update(
        &self,
        request: Request<proto::UpdateRequest>,
    ) -> Result<Response<proto::UpdateResponse>, Status> {
        let (request, wall) = (request.into_inner(), self.shared.wall());
        self.shared.change(|state| state.update(&request, wall)).map(Response::new)
    }

    async fn deregister(
        &self,
        request: Request<proto::DeregisterRequest>,
    ) -> Result<Response<proto::DeregisterResponse>, Status> {
        let (request, wall) = (request.into_inner(), self.shared.wall());
        self.shared.change(|state| state.deregister(&request, wall)).map(Response::new)
    }
}

#[tonic::async_trait]
impl Discovery for Handlers {
    type WatchStream = ResponseStream<proto::WatchResponse>;

    async fn resolve(
        &self,
        request: Request<proto::ResolveRequest>,
    ) -> Result<Response<proto::ResolveResponse>, Status> {
        let request = request.into_inner();
        self.shared.read(|state| state.resolve(request)).map(Response::new)
    }

    async fn list_services(
        &self,
        request: Request<proto::ListServicesRequest>,
    ) -> Result<Response<proto::ListServicesResponse>, Status> {
        let request = request.into_inner();
        self.shared.read(|state| state.list_services(&request)).map(Response::new)
    }

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let watch = OpenWatch::open(&self.shared, request.into_inner())?;
        let messages =
            stream::unfold(watch, async |mut watch| Some((Ok(watch.next().await), watch)));
        Ok(Response::new(Box::pin(messages)))
    }
}
