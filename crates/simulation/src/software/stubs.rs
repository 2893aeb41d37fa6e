//! The stubs of a conversation with the registry, all over one connection.

use std::time::Duration;

use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use waypost_client::proto::{
    DeregisterRequest, HeartbeatRequest, Instance, KeepAliveRequest, KeepAliveResponse,
    RegisterRequest, ResolveRequest, UpdateRequest, discovery_client::DiscoveryClient,
    registry_client::RegistryClient,
};

use crate::{
    network::connection::{Keeping, Wire},
    network::socket::Process,
    time::Millis,
};

const WINDOW: u32 = 1024 * 1024;
/// The longest time to connect: the kernels do it.
const OPENING_MAX: Duration = Duration::from_millis(100);

/// The conversation ended early: a response is missing, or the registry was ended.
pub(super) struct Broken;

pub(super) type Answer<T> = Result<T, Broken>;

/// The stubs, all over one connection.
pub(super) struct Registry {
    pub(super) wire: Wire,
    pub(super) stub: RegistryClient<Wire>,
}

/// An open keep-alive stream.
pub(super) struct Beats {
    requests: mpsc::Sender<KeepAliveRequest>,
    answers: Streaming<KeepAliveResponse>,
}

pub(super) fn broken<E>(_: E) -> Broken {
    Broken
}

/// The result of a call, where there is one.
pub(super) fn settled<T>(answer: Result<tonic::Response<T>, Status>) -> Answer<Result<T, Code>> {
    match answer {
        Ok(response) => Ok(Ok(response.into_inner())),
        Err(status) => match status.code() {
            Code::FailedPrecondition
            | Code::NotFound
            | Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated => Ok(Err(status.code())),
            _ => Err(Broken),
        },
    }
}

impl Registry {
    pub(super) async fn open(process: &Process) -> Answer<Self> {
        // Not with the next start of the registry, which only the recorder reaches at first.
        let opened = timeout(OPENING_MAX, Wire::open(process, WINDOW, Keeping::Patient)).await;
        let wire = opened.map_err(broken)?.ok_or(Broken)?;
        Ok(Self { wire: wire.clone(), stub: RegistryClient::with_origin(wire, Wire::origin()) })
    }

    pub(super) async fn register(
        &mut self,
        instance: &Instance,
        ttl_ms: Millis,
        grace_ms: Millis,
    ) -> Answer<u64> {
        let duration = |millis| Duration::from_millis(millis).try_into().ok();
        let request = RegisterRequest {
            instance: Some(instance.clone()),
            ttl: duration(ttl_ms),
            disconnect_grace: duration(grace_ms),
        };
        let answer = self.stub.register(request).await.map_err(broken)?;
        Ok(answer.into_inner().lease_id)
    }

    /// Tries to register, for as long as a lease lasts.
    pub(super) async fn try_register(&mut self, instance: &Instance) -> Answer<Result<(), Code>> {
        let ttl = Duration::from_secs(15).try_into().ok();
        let request =
            RegisterRequest { instance: Some(instance.clone()), ttl, ..RegisterRequest::default() };
        Ok(settled(self.stub.register(request).await)?.map(drop))
    }

    /// Renews a lease. Returns whether it is one of the caller's.
    pub(super) async fn renewed(&mut self, lease: u64) -> Answer<bool> {
        let request = HeartbeatRequest { lease_ids: vec![lease] };
        let answer = settled(self.stub.heartbeat(request).await)?;
        Ok(answer.is_ok_and(|answer| answer.unknown_lease_ids.is_empty()))
    }

    pub(super) async fn unknown(&mut self, lease_ids: Vec<u64>) -> Answer<Vec<u64>> {
        let answer = self.stub.heartbeat(HeartbeatRequest { lease_ids }).await.map_err(broken)?;
        Ok(answer.into_inner().unknown_lease_ids)
    }

    pub(super) async fn update(&mut self, lease_id: u64, weight: u32) -> Answer<Result<(), Code>> {
        let request = UpdateRequest {
            lease_id,
            instance: Some(Instance { weight: Some(weight), ..Instance::default() }),
            update_mask: Some(prost_types::FieldMask { paths: vec!["weight".to_owned()] }),
            ..UpdateRequest::default()
        };
        Ok(settled(self.stub.update(request).await)?.map(drop))
    }

    pub(super) async fn deregister(&mut self, lease_id: u64) -> Answer<Result<(), Code>> {
        let request = DeregisterRequest { lease_id, ..DeregisterRequest::default() };
        Ok(settled(self.stub.deregister(request).await)?.map(drop))
    }

    pub(super) async fn weights(&mut self, instance: &Instance) -> Answer<Vec<u32>> {
        let request = ResolveRequest {
            namespace: instance.namespace.clone(),
            service: instance.service.clone(),
            all_statuses: true,
            ..ResolveRequest::default()
        };
        let mut discovery = DiscoveryClient::with_origin(self.wire.clone(), Wire::origin());
        let answer = discovery.resolve(request).await.map_err(broken)?.into_inner();
        Ok(answer.instances.iter().filter_map(|instance| instance.weight).collect())
    }

    pub(super) async fn beats(&mut self) -> Answer<Beats> {
        let (requests, outgoing) = mpsc::channel(2);
        let answers = self.stub.keep_alive(ReceiverStream::new(outgoing)).await.map_err(broken)?;
        Ok(Beats { requests, answers: answers.into_inner() })
    }
}

impl Beats {
    /// Renews a lease. Returns whether it is one of the caller's, and the stream goes on.
    pub(super) async fn renewed(&mut self, lease: u64) -> Answer<bool> {
        // The registry may have ended the stream: then the response has the reason.
        let _ended = self.requests.send(KeepAliveRequest { lease_ids: vec![lease] }).await;
        match self.answers.message().await {
            Ok(answer) => Ok(answer.ok_or(Broken)?.unknown_lease_ids.is_empty()),
            Err(status) if status.code() == Code::Unauthenticated => Ok(false),
            Err(_) => Err(Broken),
        }
    }

    pub(super) async fn unknown(&mut self, lease_ids: Vec<u64>) -> Answer<Vec<u64>> {
        self.requests.send(KeepAliveRequest { lease_ids }).await.map_err(broken)?;
        let answer = self.answers.message().await.map_err(broken)?;
        Ok(answer.ok_or(Broken)?.unknown_lease_ids)
    }
}
