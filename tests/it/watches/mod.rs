//! Watches: snapshots and changes, resuming, sizes of messages.

mod changes;
mod churn;
mod messages;
mod resume;
use waypost_client::proto::{ChangeKind, ChangeReason, DeregisterRequest, Instance, UpdateRequest};

fn evict(service: &str, id: &str) -> DeregisterRequest {
    DeregisterRequest { service: service.into(), id: id.into(), ..DeregisterRequest::default() }
}

fn move_to(lease_id: u64, zone: &str) -> UpdateRequest {
    UpdateRequest {
        lease_id,
        instance: Some(Instance { zone: zone.to_owned(), ..Instance::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["zone".to_owned()] }),
        ..UpdateRequest::default()
    }
}

fn kinds(changes: &[waypost_client::proto::Change]) -> Vec<(ChangeKind, ChangeReason, String)> {
    let kind = |change: &waypost_client::proto::Change| {
        let id = change.instance.as_ref().map(|instance| instance.id.clone());
        (change.kind(), change.reason(), id.unwrap_or_default())
    };
    changes.iter().map(kind).collect()
}
