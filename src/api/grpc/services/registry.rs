//! The service `waypost.v1.Registry`, for instances.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, stream};
use tonic::{Request, Response, Status, Streaming};

use super::CallerSource;
use crate::{
    api::grpc::{
        error,
        message::{
            RegisterResponse, RequestParser, UpdateResponse, cursor_to_wire, duration_to_wire,
            instance_bytes,
        },
        proto::{self, registry_server::Registry},
    },
    clock::Clock,
    engine::{Engine, KeepAlive},
    model::{Content, InstanceId, LeaseTerms, Limits, Revision, ServiceKey},
    registry::{Outcome, Target},
};

#[derive(Debug)]
pub(super) struct RegistryApi {
    engine: Engine,
    limits: Arc<Limits>,
    clock: Clock,
    callers: CallerSource,
}

impl RegistryApi {
    pub(super) fn new(
        engine: Engine,
        limits: Arc<Limits>,
        clock: Clock,
        callers: CallerSource,
    ) -> Self {
        Self { engine, limits, clock, callers }
    }

    fn cursor(&self, revision: Revision) -> Option<proto::Cursor> {
        Some(cursor_to_wire(self.engine.cursor(revision)))
    }

    /// Parses the identity and the content of an instance.
    fn registration(
        &self,
        parser: &mut RequestParser<'_>,
        instance: &proto::Instance,
    ) -> Option<(ServiceKey, InstanceId, Content)> {
        let service = parser.service("instance.", &instance.namespace, &instance.service);
        let id = if instance.id.is_empty() {
            Some(self.new_id())
        } else {
            parser.id("instance.id", &instance.id)
        };
        let content = parser.content(instance);
        Some((service?, id?, content?))
    }

    /// Makes the id of an instance that brings none.
    fn new_id(&self) -> InstanceId {
        let wall = self.clock.wall().0;
        let nanos = u32::try_from(wall % 1000 * 1_000_000).unwrap_or(0);
        let timestamp = uuid::Timestamp::from_unix(uuid::NoContext, wall / 1000, nanos);
        InstanceId::from_uuid(uuid::Uuid::new_v7(timestamp))
    }
}

/// Refuses a message with too many leases.
fn check_count(limits: &Limits, leases: &[u64]) -> Result<(), Status> {
    let mut parser = RequestParser::new(limits);
    if parser.leases(leases) { Ok(()) } else { Err(parser.violations.into_status()) }
}

#[tonic::async_trait]
impl Registry for RegistryApi {
    async fn register(
        &self,
        request: Request<proto::RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let caller = self.callers.caller(&request)?;
        let request = request.into_inner();
        let mut parser = RequestParser::new(&self.limits);
        let read = match &request.instance {
            Some(instance) => self.registration(&mut parser, instance),
            None => {
                parser.violations.bad("instance", "is required");
                None
            }
        };
        let terms = parser.terms(request.ttl, request.disconnect_grace);
        let (Some((service, id, content)), Some(terms)) = (read, terms) else {
            return Err(parser.violations.into_status());
        };
        let permit = caller.register(service, &id, &content.host());
        let permit = permit.map_err(error::refused)?;
        let registered = self.engine.register(permit, id, content, terms).await;
        let Outcome::Registered { instance, lease, revision } =
            registered.map_err(error::status)?
        else {
            return Err(error::mismatch());
        };
        Ok(Response::new(RegisterResponse {
            instance: instance_bytes(&instance),
            lease_id: lease.bits(),
            ttl: Some(duration_to_wire(terms.ttl)),
            heartbeat_interval: Some(duration_to_wire(terms.ttl / LeaseTerms::HEARTBEATS_A_TTL)),
            cursor: self.cursor(revision),
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<proto::HeartbeatRequest>,
    ) -> Result<Response<proto::HeartbeatResponse>, Status> {
        let caller = self.callers.caller(&request)?;
        let leases = request.into_inner().lease_ids;
        check_count(&self.limits, &leases)?;
        let unknown_lease_ids = self.engine.renew(&caller, &leases).await;
        Ok(Response::new(proto::HeartbeatResponse { unknown_lease_ids }))
    }

    type KeepAliveStream =
        Pin<Box<dyn Stream<Item = Result<proto::KeepAliveResponse, Status>> + Send>>;

    async fn keep_alive(
        &self,
        request: Request<Streaming<proto::KeepAliveRequest>>,
    ) -> Result<Response<Self::KeepAliveStream>, Status> {
        struct RenewalStream {
            requests: Streaming<proto::KeepAliveRequest>,
            stream: KeepAlive,
            limits: Arc<Limits>,
        }
        let caller = self.callers.caller(&request)?;
        let renewals = RenewalStream {
            requests: request.into_inner(),
            stream: self.engine.keep_alive(caller),
            limits: Arc::clone(&self.limits),
        };
        // One response for each request, after the one before was sent. An error ends the stream.
        // At the end `renewals` is dropped, and its leases expire after their grace.
        let responses = stream::try_unfold(renewals, async |mut renewals| {
            let request = renewals.requests.message().await;
            let Some(request) = request.map_err(|status| error::normalized(&status))? else {
                return Ok(None);
            };
            check_count(&renewals.limits, &request.lease_ids)?;
            let unknown_lease_ids = renewals.stream.renew(&request.lease_ids).await;
            let response = proto::KeepAliveResponse { unknown_lease_ids };
            Ok(Some((response, renewals)))
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn update(
        &self,
        request: Request<proto::UpdateRequest>,
    ) -> Result<Response<UpdateResponse>, Status> {
        let caller = self.callers.caller(&request)?;
        let request = request.into_inner();
        let proto::UpdateRequest { lease_id, namespace, service, id, instance, update_mask } =
            request;
        let mut parser = RequestParser::new(&self.limits);
        let target = parser.target(lease_id, &namespace, &service, &id);
        let patch = parser.patch(&instance.unwrap_or_default(), update_mask.as_ref());
        let (Some(target), Some(patch), true) = (target, patch, parser.violations.is_empty())
        else {
            return Err(parser.violations.into_status());
        };
        let updated = match target {
            Target::Lease(lease) => self.engine.update_leased(&caller, lease, patch).await,
            Target::Identity(service, id) => {
                let permit = caller.operate(service, &id).map_err(error::refused)?;
                self.engine.update(permit, id, patch).await
            }
        };
        let updated = updated.map_err(error::status)?;
        let Outcome::Updated { instance, revision } = updated else {
            return Err(error::mismatch());
        };
        Ok(Response::new(UpdateResponse {
            instance: instance_bytes(&instance),
            cursor: self.cursor(revision),
        }))
    }

    async fn deregister(
        &self,
        request: Request<proto::DeregisterRequest>,
    ) -> Result<Response<proto::DeregisterResponse>, Status> {
        let caller = self.callers.caller(&request)?;
        let proto::DeregisterRequest { lease_id, namespace, service, id } = request.into_inner();
        let mut parser = RequestParser::new(&self.limits);
        let Some(target) = parser.target(lease_id, &namespace, &service, &id) else {
            return Err(parser.violations.into_status());
        };
        let removed = match target {
            Target::Lease(lease) => self.engine.deregister_leased(&caller, lease).await,
            Target::Identity(service, id) => {
                let permit = caller.operate(service, &id).map_err(error::refused)?;
                self.engine.deregister(permit, id).await
            }
        };
        let removed = removed.map_err(error::status)?;
        let Outcome::Deregistered { revision, .. } = removed else { return Err(error::mismatch()) };
        Ok(Response::new(proto::DeregisterResponse { cursor: self.cursor(revision) }))
    }
}
