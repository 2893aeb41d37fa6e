//! The methods of a registry, as its clients call them. They translate; what happens is the state's.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt, stream};
use tonic::{Request, Response, Status, Streaming};

use super::{
    book::Book,
    fields::Faults,
    state::{Scope, State},
    telling::Telling,
};
use crate::proto::{self, Instance, discovery_server::Discovery, registry_server::Registry};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A registry, as its clients call it.
#[derive(Clone, Debug)]
pub(super) struct Handlers {
    pub(super) book: Arc<Book>,
}

#[tonic::async_trait]
impl Registry for Handlers {
    type KeepAliveStream = Answers<proto::KeepAliveResponse>;

    async fn register(
        &self,
        request: Request<proto::RegisterRequest>,
    ) -> Result<Response<proto::RegisterResponse>, Status> {
        let request = request.into_inner();
        self.book.alter(|state| state.register(request)).map(Response::new)
    }

    async fn heartbeat(
        &self,
        request: Request<proto::HeartbeatRequest>,
    ) -> Result<Response<proto::HeartbeatResponse>, Status> {
        let lease_ids = request.into_inner().lease_ids;
        let unknown_lease_ids = self.book.alter(|state| state.renew(&lease_ids));
        Ok(Response::new(proto::HeartbeatResponse { unknown_lease_ids }))
    }

    async fn keep_alive(
        &self,
        requests: Request<Streaming<proto::KeepAliveRequest>>,
    ) -> Result<Response<Self::KeepAliveStream>, Status> {
        let book = Arc::clone(&self.book);
        let answers = requests.into_inner().map(move |request| {
            let lease_ids = request?.lease_ids;
            let unknown_lease_ids = book.alter(|state| state.renew(&lease_ids));
            Ok(proto::KeepAliveResponse { unknown_lease_ids })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn update(
        &self,
        request: Request<proto::UpdateRequest>,
    ) -> Result<Response<proto::UpdateResponse>, Status> {
        let request = request.into_inner();
        self.book.alter(|state| state.update(request)).map(Response::new)
    }

    async fn deregister(
        &self,
        request: Request<proto::DeregisterRequest>,
    ) -> Result<Response<proto::DeregisterResponse>, Status> {
        let request = request.into_inner();
        self.book.alter(|state| state.deregister(&request)).map(Response::new)
    }
}

#[tonic::async_trait]
impl Discovery for Handlers {
    type WatchStream = Answers<proto::WatchResponse>;

    async fn resolve(
        &self,
        request: Request<proto::ResolveRequest>,
    ) -> Result<Response<proto::ResolveResponse>, Status> {
        let request = request.into_inner();
        refuse_filter(request.filter.as_ref())?;
        let mut faults = Faults::default();
        faults.service("service", &request.service);
        let page = faults.page(request.page_size, &request.page_token);
        faults.refuse()?;
        let scope = Scope::service(&request.namespace, &request.service);
        let wanted =
            |instance: &Instance| request.all_statuses || instance.status() == proto::Status::Up;
        let resolve = |state: &State| {
            let instances = state.instances(&scope).into_iter().filter(wanted);
            let (instances, next_page_token) = page.cut(instances);
            proto::ResolveResponse { instances, cursor: Some(state.cursor()), next_page_token }
        };
        Ok(Response::new(self.book.look(resolve)))
    }

    async fn list_services(
        &self,
        _: Request<proto::ListServicesRequest>,
    ) -> Result<Response<proto::ListServicesResponse>, Status> {
        Err(Status::unimplemented("the registry for tests does not list services"))
    }

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        refuse_filter(request.filter.as_ref())?;
        let mut faults = Faults::default();
        for (index, service) in request.services.iter().enumerate() {
            faults.service(&format!("services[{index}]"), service);
        }
        faults.refuse()?;
        let told = stream::unfold(Telling::begin(&self.book, request), async |mut telling| {
            Some((Ok(telling.next().await), telling))
        });
        Ok(Response::new(Box::pin(told)))
    }
}

/// Filters are none of the client's doings.
fn refuse_filter(filter: Option<&proto::Filter>) -> Result<(), Status> {
    match filter {
        Some(filter) if *filter != proto::Filter::default() => {
            Err(Status::unimplemented("the registry for tests takes no filter"))
        }
        _ => Ok(()),
    }
}
