//! Waypost's protocol. Decodes only the checked parts of responses.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use prost_types::FieldMask;
use waypost_client::proto::{
    ChangeKind, DeregisterRequest, HeartbeatResponse, Instance, KeepAliveRequest, RegisterRequest,
    ResolveRequest, UpdateRequest, WatchRequest,
};

use super::{ObservedEvent, SystemProtocol, index_of, number_of};
use crate::{
    error::BenchCallError,
    load::connection::{RpcCall, frame},
};

#[derive(Debug)]
pub(super) struct Waypost;

/// The decoded part of `RegisterResponse`.
#[derive(Clone, PartialEq, Message)]
struct RegisterReply {
    #[prost(fixed64, tag = "2")]
    lease_id: u64,
}

/// The decoded part of `ResolveResponse`.
#[derive(Clone, PartialEq, Message)]
struct ResolveReply {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    instances: Vec<Bytes>,
}

/// The decoded part of `WatchResponse`.
#[derive(Clone, PartialEq, Message)]
struct WatchReply {
    #[prost(message, optional, tag = "2")]
    snapshot: Option<SnapshotPart>,
    #[prost(message, optional, tag = "3")]
    changes: Option<ChangeList>,
}

#[derive(Clone, PartialEq, Message)]
struct SnapshotPart {
    #[prost(bool, tag = "2")]
    last: bool,
}

#[derive(Clone, PartialEq, Message)]
struct ChangeList {
    #[prost(message, repeated, tag = "1")]
    changes: Vec<ChangeItem>,
}

#[derive(Clone, PartialEq, Message)]
struct ChangeItem {
    #[prost(enumeration = "ChangeKind", tag = "1")]
    kind: i32,
    #[prost(message, optional, tag = "2")]
    instance: Option<ChangedInstance>,
}

/// The decoded part of `Instance`.
#[derive(Clone, PartialEq, Message)]
struct ChangedInstance {
    #[prost(string, tag = "3")]
    id: String,
    #[prost(string, tag = "9")]
    version: String,
}

impl SystemProtocol for Waypost {
    fn leases_a_message_max(&self) -> usize {
        65_536
    }

    fn register(&self, instance: &Instance, ttl: Duration) -> RpcCall {
        let ttl = prost_types::Duration::try_from(ttl).expect("a TTL is short");
        let request = RegisterRequest {
            instance: Some(instance.clone()),
            ttl: Some(ttl),
            disconnect_grace: None,
        };
        RpcCall::new("/waypost.v1.Registry/Register", &request)
    }

    fn lease(&self, answer: Bytes) -> Result<u64, BenchCallError> {
        Ok(decode::<RegisterReply>(answer)?.lease_id)
    }

    fn attach(&self, _instance: &Instance, _lease: u64) -> Option<RpcCall> {
        None
    }

    fn change(&self, instance: &Instance, lease_id: u64) -> RpcCall {
        let changed = Instance { version: instance.version.clone(), ..Instance::default() };
        let request = UpdateRequest {
            lease_id,
            instance: Some(changed),
            update_mask: Some(FieldMask { paths: vec!["version".to_owned()] }),
            ..UpdateRequest::default()
        };
        RpcCall::new("/waypost.v1.Registry/Update", &request)
    }

    fn deregister(&self, lease_id: u64) -> RpcCall {
        let request = DeregisterRequest { lease_id, ..DeregisterRequest::default() };
        RpcCall::new("/waypost.v1.Registry/Deregister", &request)
    }

    fn resolve(&self, namespace: &str, service: &str) -> RpcCall {
        let request = ResolveRequest {
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            ..ResolveRequest::default()
        };
        RpcCall::new("/waypost.v1.Discovery/Resolve", &request)
    }

    fn found(&self, answer: Bytes) -> Result<u64, BenchCallError> {
        Ok(decode::<ResolveReply>(answer)?.instances.len() as u64)
    }

    fn keep_alive_path(&self) -> &'static str {
        "/waypost.v1.Registry/KeepAlive"
    }

    fn keep_alive(&self, leases: &[u64]) -> Bytes {
        frame(&KeepAliveRequest { lease_ids: leases.to_vec() })
    }

    fn unknown(&self, answer: Bytes) -> Result<u64, BenchCallError> {
        Ok(decode::<HeartbeatResponse>(answer)?.unknown_lease_ids.len() as u64)
    }

    fn watch(&self, namespace: &str, service: Option<&str>) -> RpcCall {
        let request = WatchRequest {
            namespace: namespace.to_owned(),
            services: service.map(str::to_owned).into_iter().collect(),
            ..WatchRequest::default()
        };
        RpcCall::new("/waypost.v1.Discovery/Watch", &request)
    }

    fn seen(&self, message: Bytes) -> Result<Vec<ObservedEvent>, BenchCallError> {
        let WatchReply { snapshot, changes } = decode(message)?;
        if snapshot.is_some_and(|snapshot| snapshot.last) {
            return Ok(vec![ObservedEvent::Ready]);
        }
        let changes = changes.map(|changes| changes.changes).unwrap_or_default();
        let mut seen = Vec::with_capacity(changes.len());
        for change in changes {
            let kind = change.kind();
            let instance = change.instance.unwrap_or_default();
            match kind {
                ChangeKind::Updated => {
                    seen.push(ObservedEvent::Changed(number_of(&instance.version)?));
                }
                ChangeKind::Removed => seen.push(ObservedEvent::Removed(index_of(&instance.id)?)),
                _ => {}
            }
        }
        Ok(seen)
    }
}

fn decode<M: Message + Default>(answer: Bytes) -> Result<M, BenchCallError> {
    M::decode(answer).map_err(|_| BenchCallError::InvalidResponse("not a message of Waypost"))
}
