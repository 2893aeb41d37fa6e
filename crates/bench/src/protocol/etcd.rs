//! The part of etcd's protocol that a registry on etcd needs, with the field numbers of etcd's
//! `rpc.proto`. An instance is a key `/namespace/service/id` with a lease of its own; its value is
//! the message that Waypost receives.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use waypost_client::proto::Instance;

use super::{ObservedEvent, SystemProtocol, index_of, number_of};
use crate::{
    error::BenchCallError,
    load::connection::{RpcCall, frame},
};

#[derive(Debug)]
pub(super) struct Etcd;

#[derive(Clone, PartialEq, Message)]
struct LeaseGrantRequest {
    #[prost(int64, tag = "1")]
    ttl: i64,
}

#[derive(Clone, PartialEq, Message)]
struct LeaseGrantResponse {
    #[prost(int64, tag = "2")]
    id: i64,
}

#[derive(Clone, PartialEq, Message)]
struct LeaseRevokeRequest {
    #[prost(int64, tag = "1")]
    id: i64,
}

#[derive(Clone, PartialEq, Message)]
struct LeaseKeepAliveRequest {
    #[prost(int64, tag = "1")]
    id: i64,
}

#[derive(Clone, PartialEq, Message)]
struct LeaseKeepAliveResponse {
    #[prost(int64, tag = "3")]
    ttl: i64,
}

#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
    #[prost(int64, tag = "3")]
    lease: i64,
}

#[derive(Clone, PartialEq, Message)]
struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    range_end: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct RangeResponse {
    #[prost(bytes = "bytes", repeated, tag = "2")]
    kvs: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct EtcdWatchRequest {
    #[prost(message, optional, tag = "1")]
    create: Option<RangeRequest>,
}

#[derive(Clone, PartialEq, Message)]
struct EtcdWatchResponse {
    #[prost(bool, tag = "3")]
    created: bool,
    #[prost(message, repeated, tag = "11")]
    events: Vec<EtcdEvent>,
}

#[derive(Clone, PartialEq, Message)]
struct EtcdEvent {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(message, optional, tag = "2")]
    kv: Option<EtcdKeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct EtcdKeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(bytes = "bytes", tag = "5")]
    value: Bytes,
}

/// The decoded part of `Instance`.
#[derive(Clone, PartialEq, Message)]
struct InstanceVersion {
    #[prost(string, tag = "9")]
    version: String,
}

/// The kind of an event that removes a key.
const DELETE: i32 = 1;

impl SystemProtocol for Etcd {
    fn leases_a_message_max(&self) -> usize {
        1
    }

    fn register(&self, _instance: &Instance, ttl: Duration) -> RpcCall {
        // etcd's TTLs are whole seconds.
        let request = LeaseGrantRequest { ttl: ttl.as_secs().cast_signed() };
        RpcCall::new("/etcdserverpb.Lease/LeaseGrant", &request)
    }

    fn lease(&self, answer: Bytes) -> Result<u64, BenchCallError> {
        Ok(decode::<LeaseGrantResponse>(answer)?.id.cast_unsigned())
    }

    fn attach(&self, instance: &Instance, lease: u64) -> Option<RpcCall> {
        Some(self.change(instance, lease))
    }

    fn change(&self, instance: &Instance, lease: u64) -> RpcCall {
        let Instance { namespace, service, id, .. } = instance;
        let request = PutRequest {
            key: format!("/{namespace}/{service}/{id}").into(),
            value: instance.encode_to_vec().into(),
            lease: lease.cast_signed(),
        };
        RpcCall::new("/etcdserverpb.KV/Put", &request)
    }

    fn deregister(&self, lease: u64) -> RpcCall {
        let request = LeaseRevokeRequest { id: lease.cast_signed() };
        RpcCall::new("/etcdserverpb.Lease/LeaseRevoke", &request)
    }

    fn resolve(&self, namespace: &str, service: &str) -> RpcCall {
        RpcCall::new("/etcdserverpb.KV/Range", &below(namespace, Some(service)))
    }

    fn found(&self, answer: Bytes) -> Result<u64, BenchCallError> {
        Ok(decode::<RangeResponse>(answer)?.kvs.len() as u64)
    }

    fn keep_alive_path(&self) -> &'static str {
        "/etcdserverpb.Lease/LeaseKeepAlive"
    }

    fn keep_alive(&self, leases: &[u64]) -> Bytes {
        let id = leases.first().copied().unwrap_or_default().cast_signed();
        frame(&LeaseKeepAliveRequest { id })
    }

    fn unknown(&self, answer: Bytes) -> Result<u64, BenchCallError> {
        Ok(u64::from(decode::<LeaseKeepAliveResponse>(answer)?.ttl <= 0))
    }

    fn watch(&self, namespace: &str, service: Option<&str>) -> RpcCall {
        let request = EtcdWatchRequest { create: Some(below(namespace, service)) };
        RpcCall::new("/etcdserverpb.Watch/Watch", &request)
    }

    fn seen(&self, message: Bytes) -> Result<Vec<ObservedEvent>, BenchCallError> {
        let EtcdWatchResponse { created, events } = decode(message)?;
        if created {
            return Ok(vec![ObservedEvent::Ready]);
        }
        let seen = events.into_iter().map(|event| {
            let kv = event.kv.unwrap_or_default();
            if event.kind == DELETE {
                index_of(&kv.key).map(ObservedEvent::Removed)
            } else {
                number_of(&decode::<InstanceVersion>(kv.value)?.version).map(ObservedEvent::Changed)
            }
        });
        seen.collect()
    }
}

/// Returns the range of all keys below a prefix.
fn below(namespace: &str, service: Option<&str>) -> RangeRequest {
    let prefix = match service {
        Some(service) => format!("/{namespace}/{service}"),
        None => format!("/{namespace}"),
    };
    // `0` is the character after `/`: the end of the range.
    RangeRequest { key: format!("{prefix}/").into(), range_end: format!("{prefix}0").into() }
}

fn decode<M: Message + Default>(answer: Bytes) -> Result<M, BenchCallError> {
    M::decode(answer).map_err(|_| BenchCallError::InvalidResponse("not a message of etcd"))
}
