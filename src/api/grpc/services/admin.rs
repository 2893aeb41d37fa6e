//! The service `waypost.v1.Admin`, for operators.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, stream};
use tonic::{Request, Response, Status};
use waypost_auth::policy::{Grant, Grants};
use waypost_serving::tasks;

use super::CallerSource;
use crate::{
    api::grpc::{
        error,
        message::{RequestParser, cursor_to_wire, time_to_wire},
        proto::{self, admin_server::Admin},
    },
    auth::{CallerIdentity, Gate},
    clock::Clock,
    engine::Engine,
    model::{Limits, WallTime},
    registry::{Outcome, ProtectedNamespace},
};

#[derive(Debug)]
pub(super) struct AdminApi {
    engine: Engine,
    limits: Arc<Limits>,
    clock: Clock,
    started_at: WallTime,
    gate: Gate,
    callers: CallerSource,
}

impl AdminApi {
    pub(super) fn new(engine: Engine, limits: Arc<Limits>, clock: Clock, gate: Gate) -> Self {
        Self {
            engine,
            limits,
            clock,
            started_at: clock.wall(),
            callers: CallerSource::of(&gate),
            gate,
        }
    }

    fn protection_to_wire(&self, protected: &ProtectedNamespace) -> proto::Protection {
        let ProtectedNamespace { namespace, held, since, until, why } = protected;
        proto::Protection {
            namespace: namespace.to_string(),
            held: *held as u64,
            since: Some(time_to_wire(self.clock.wall_at(*since))),
            until: Some(time_to_wire(self.clock.wall_at(*until))),
            why: why.to_string(),
        }
    }
}

fn access_to_wire(gate: &Gate) -> proto::Access {
    let insecure = gate.is_insecure();
    let Some(trust) = gate.trust().map(|trust| trust.current()) else {
        return proto::Access { insecure, ..proto::Access::default() };
    };
    let hexadecimal = |bytes: [u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    proto::Access {
        epoch: trust.epoch,
        since: Some(time_to_wire(trust.since)),
        policy_sha256: hexadecimal(trust.policy.sha256()),
        enforced: trust.policy.is_enforced(),
        insecure,
        certificate_expires: trust.certificate_expires().map(Into::into),
    }
}

fn grants_to_wire(grants: &Grants) -> Vec<proto::Grant> {
    let to_wire = |grant: Grant| proto::Grant {
        actions: grant.actions.iter().map(|action| action.name().to_owned()).collect(),
        on: grant.on,
        hosts: grant.hosts.unwrap_or_default(),
        rule: grant.line.0,
    };
    grants.describe().into_iter().map(to_wire).collect()
}

#[tonic::async_trait]
impl Admin for AdminApi {
    async fn get_status(
        &self,
        request: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::GetStatusResponse>, Status> {
        let permit = self.callers.caller(&request)?.read_status().map_err(error::refused)?;
        let status = self.engine.status(&permit);
        Ok(Response::new(proto::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            history_id: status.cursor.history.to_string(),
            revision: status.cursor.revision.0,
            instances: status.instances as u64,
            services: status.services as u64,
            leases: status.instances as u64,
            watchers: status.watches as u64,
            store: status.store.to_owned(),
            store_failure: status.store_failure.map(|error| error.to_string()).unwrap_or_default(),
            protection: status.protected.iter().map(|p| self.protection_to_wire(p)).collect(),
            started_at: Some(time_to_wire(self.started_at)),
            access: Some(access_to_wire(&self.gate)),
        }))
    }

    async fn who_am_i(
        &self,
        request: Request<proto::WhoAmIRequest>,
    ) -> Result<Response<proto::WhoAmIResponse>, Status> {
        let Some(CallerIdentity { authentication, grants, epoch }) =
            self.callers.caller(&request)?.identity()
        else {
            let grants = grants_to_wire(&Grants::unrestricted());
            return Ok(Response::new(proto::WhoAmIResponse { grants, ..Default::default() }));
        };
        Ok(Response::new(proto::WhoAmIResponse {
            principal: authentication.principal.to_string(),
            via: authentication.via.name().to_owned(),
            expires: authentication.ends.map(Into::into),
            grants: grants_to_wire(&grants),
            epoch,
        }))
    }

    async fn release_protection(
        &self,
        request: Request<proto::ReleaseProtectionRequest>,
    ) -> Result<Response<proto::ReleaseProtectionResponse>, Status> {
        let caller = self.callers.caller(&request)?;
        let mut parser = RequestParser::new(&self.limits);
        let Some(namespace) = parser.namespace("namespace", &request.into_inner().namespace) else {
            return Err(parser.violations.into_status());
        };
        let permit = caller.release(namespace).map_err(error::refused)?;
        let released = self.engine.release(permit).await.map_err(error::status)?;
        let Outcome::Released { count, revision } = released else {
            return Err(error::mismatch());
        };
        Ok(Response::new(proto::ReleaseProtectionResponse {
            evicted: count as u64,
            cursor: Some(cursor_to_wire(self.engine.cursor(revision))),
        }))
    }

    type BackupStream = Pin<Box<dyn Stream<Item = Result<proto::BackupResponse, Status>> + Send>>;

    async fn backup(
        &self,
        request: Request<proto::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let permit = self.callers.caller(&request)?.copy_store().map_err(error::refused)?;
        let image = self.engine.backup(permit).await.map_err(error::status)?;
        // Each piece is read after the one before was sent.
        let pieces = stream::unfold(Some(image), async |image| {
            let mut image = image?;
            let (piece, image) = tasks::block(move || (image.next(), image)).await;
            Some(match piece? {
                Ok(chunk) => (Ok(proto::BackupResponse { chunk }), Some(image)),
                Err(failure) => (Err(error::status(failure.into())), None),
            })
        });
        Ok(Response::new(Box::pin(pieces)))
    }
}
