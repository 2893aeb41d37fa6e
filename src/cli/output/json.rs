//! The protocol's messages as JSON. Field names are the protocol's; statuses have no prefix; times
//! are RFC 3339; 64-bit ids are strings, since JSON numbers are exact to 53 bits only.

use std::collections::BTreeMap;

use prost_types::Timestamp;
use serde::Serialize;
use waypost_client::{Instance, proto};

use super::display::status_name;

#[derive(Debug, Serialize)]
pub(crate) struct InstanceJson<'a> {
    namespace: &'a str,
    service: &'a str,
    id: &'a str,
    host: &'a str,
    port: u32,
    ports: &'a BTreeMap<String, u32>,
    status: String,
    zone: &'a str,
    version: &'a str,
    weight: Option<u32>,
    metadata: &'a BTreeMap<String, String>,
    created_revision: u64,
    modified_revision: u64,
    registered_at: Option<String>,
}

impl<'a> From<&'a Instance> for InstanceJson<'a> {
    fn from(instance: &'a Instance) -> Self {
        Self {
            namespace: &instance.namespace,
            service: &instance.service,
            id: &instance.id,
            host: &instance.host,
            port: instance.port,
            ports: &instance.ports,
            status: status_name(instance.status),
            zone: &instance.zone,
            version: &instance.version,
            weight: instance.weight,
            metadata: &instance.metadata,
            created_revision: instance.created_revision,
            modified_revision: instance.modified_revision,
            registered_at: instance.registered_at.as_ref().map(Timestamp::to_string),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct CursorJson {
    pub(crate) history_id: String,
    pub(crate) revision: u64,
}

impl From<proto::Cursor> for CursorJson {
    fn from(cursor: proto::Cursor) -> Self {
        Self { history_id: cursor.history_id, revision: cursor.revision }
    }
}
