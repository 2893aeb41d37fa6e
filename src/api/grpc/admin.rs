//! `waypost.v1.Admin`: what operators call.

use std::pin::Pin;

use futures_util::Stream;
use tonic::{Request, Response, Status};

use super::{
    convert::time_to_wire,
    proto::{self, admin_server::Admin},
};
use crate::{engine::Engine, model::WallTime};

#[derive(Debug)]
pub(super) struct AdminApi {
    engine: Engine,
    started_at: WallTime,
}

impl AdminApi {
    pub(super) fn new(engine: Engine, started_at: WallTime) -> Self {
        Self { engine, started_at }
    }
}

#[tonic::async_trait]
impl Admin for AdminApi {
    async fn get_status(
        &self,
        _request: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::GetStatusResponse>, Status> {
        let status = self.engine.status();
        Ok(Response::new(proto::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            history_id: status.cursor.history.to_string(),
            revision: status.cursor.revision.0,
            instances: status.instances as u64,
            services: status.services as u64,
            leases: status.instances as u64,
            watchers: status.watches as u64,
            store: status.store.to_owned(),
            protection: Vec::new(),
            started_at: Some(time_to_wire(self.started_at)),
        }))
    }

    type BackupStream = Pin<Box<dyn Stream<Item = Result<proto::BackupResponse, Status>> + Send>>;

    async fn backup(
        &self,
        _request: Request<proto::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let store = self.engine.status().store;
        Err(Status::failed_precondition(format!("the {store} store keeps nothing to back up")))
    }
}
