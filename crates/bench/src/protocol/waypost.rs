//! Waypost's own protocol. Of answers only so much is read as is looked at.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use prost_types::FieldMask;
use waypost_client::proto::{
    ChangeKind, DeregisterRequest, HeartbeatResponse, Instance, KeepAliveRequest, RegisterRequest,
    ResolveRequest, UpdateRequest, WatchRequest,
};

use super::{Protocol, Seen, index_of, number_of};
use crate::{
    error::CallError,
    load::connection::{Call, frame},
};

#[derive(Debug)]
pub(super) struct Waypost;

/// What is read of `RegisterResponse`.
#[derive(Clone, PartialEq, Message)]
struct Registered {
    #[prost(fixed64, tag = "2")]
    lease_id: u64,
}

/// What is read of `ResolveResponse`.
#[derive(Clone, PartialEq, Message)]
struct Resolved {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    instances: Vec<Bytes>,
}

/// What is read of `WatchResponse`.
#[derive(Clone, PartialEq, Message)]
struct Watched {
    #[prost(message, optional, tag = "2")]
    snapshot: Option<Snapshot>,
    #[prost(message, optional, tag = "3")]
    changes: Option<Changes>,
}

#[derive(Clone, PartialEq, Message)]
struct Snapshot {
    #[prost(bool, tag = "2")]
    last: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Changes {
    #[prost(message, repeated, tag = "1")]
    changes: Vec<Change>,
}

#[derive(Clone, PartialEq, Message)]
struct Change {
    #[prost(enumeration = "ChangeKind", tag = "1")]
    kind: i32,
    #[prost(message, optional, tag = "2")]
    instance: Option<Changed>,
}

/// What is read of `Instance`.
#[derive(Clone, PartialEq, Message)]
struct Changed {
    #[prost(string, tag = "3")]
    id: String,
    #[prost(string, tag = "9")]
    version: String,
}

impl Protocol for Waypost {
    fn leases_a_message_max(&self) -> usize {
        65_536
    }

    fn register(&self, instance: &Instance, ttl: Duration) -> Call {
        let ttl = prost_types::Duration::try_from(ttl).expect("a TTL is short");
        let request = RegisterRequest {
            instance: Some(instance.clone()),
            ttl: Some(ttl),
            disconnect_grace: None,
        };
        Call::new("/waypost.v1.Registry/Register", &request)
    }

    fn lease(&self, answer: Bytes) -> Result<u64, CallError> {
        Ok(decode::<Registered>(answer)?.lease_id)
    }

    fn attach(&self, _instance: &Instance, _lease: u64) -> Option<Call> {
        None
    }

    fn change(&self, instance: &Instance, lease_id: u64) -> Call {
        let changed = Instance { version: instance.version.clone(), ..Instance::default() };
        let request = UpdateRequest {
            lease_id,
            instance: Some(changed),
            update_mask: Some(FieldMask { paths: vec!["version".to_owned()] }),
            ..UpdateRequest::default()
        };
        Call::new("/waypost.v1.Registry/Update", &request)
    }

    fn deregister(&self, lease_id: u64) -> Call {
        let request = DeregisterRequest { lease_id, ..DeregisterRequest::default() };
        Call::new("/waypost.v1.Registry/Deregister", &request)
    }

    fn resolve(&self, namespace: &str, service: &str) -> Call {
        let request = ResolveRequest {
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            ..ResolveRequest::default()
        };
        Call::new("/waypost.v1.Discovery/Resolve", &request)
    }

    fn found(&self, answer: Bytes) -> Result<u64, CallError> {
        Ok(decode::<Resolved>(answer)?.instances.len() as u64)
    }

    fn keep_alive_path(&self) -> &'static str {
        "/waypost.v1.Registry/KeepAlive"
    }

    fn keep_alive(&self, leases: &[u64]) -> Bytes {
        frame(&KeepAliveRequest { lease_ids: leases.to_vec() })
    }

    fn unknown(&self, answer: Bytes) -> Result<u64, CallError> {
        Ok(decode::<HeartbeatResponse>(answer)?.unknown_lease_ids.len() as u64)
    }

    fn watch(&self, namespace: &str, service: Option<&str>) -> Call {
        let request = WatchRequest {
            namespace: namespace.to_owned(),
            services: service.map(str::to_owned).into_iter().collect(),
            ..WatchRequest::default()
        };
        Call::new("/waypost.v1.Discovery/Watch", &request)
    }

    fn seen(&self, message: Bytes) -> Result<Vec<Seen>, CallError> {
        let Watched { snapshot, changes } = decode(message)?;
        if snapshot.is_some_and(|snapshot| snapshot.last) {
            return Ok(vec![Seen::Ready]);
        }
        let changes = changes.map(|changes| changes.changes).unwrap_or_default();
        let mut seen = Vec::with_capacity(changes.len());
        for change in changes {
            let kind = change.kind();
            let instance = change.instance.unwrap_or_default();
            match kind {
                ChangeKind::Updated => seen.push(Seen::Changed(number_of(&instance.version)?)),
                ChangeKind::Removed => seen.push(Seen::Gone(index_of(&instance.id)?)),
                _ => {}
            }
        }
        Ok(seen)
    }
}

fn decode<M: Message + Default>(answer: Bytes) -> Result<M, CallError> {
    M::decode(answer).map_err(|_| CallError::Nonsense("no message of Waypost"))
}
