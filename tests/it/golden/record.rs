//! The contents of a store as JSON: the names are those of the protocol, 64-bit ids are strings.

use std::{fs, path::Path};

use serde_json::{Value, json};
use waypost_client::proto::{Change, Instance};
use waypost_testing::registry::Identity;

/// Everything that was there.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Golden {
    pub(crate) history_id: String,
    pub(crate) revision: u64,
    /// In the order of their identities.
    pub(crate) instances: Vec<Value>,
    /// From the first revision on.
    pub(crate) changes: Vec<Value>,
    pub(crate) leases: Vec<GrantedLease>,
    /// The leases that ended.
    pub(crate) dead_leases: Vec<u64>,
}

/// A lease and whose it is.
#[derive(Debug, PartialEq)]
pub(crate) struct GrantedLease {
    pub(crate) identity: Identity,
    pub(crate) lease_id: u64,
}

impl Golden {
    pub(crate) fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("it is there");
        let value: Value = serde_json::from_str(&text).expect("it is JSON");
        Self {
            history_id: text_of(&value["history_id"]),
            revision: value["revision"].as_u64().expect("a number"),
            instances: list(&value["instances"]).to_vec(),
            changes: list(&value["changes"]).to_vec(),
            leases: list(&value["leases"]).iter().map(GrantedLease::read).collect(),
            dead_leases: list(&value["dead_leases"]).iter().map(lease_of).collect(),
        }
    }

    pub(crate) fn write(&self, path: &Path) {
        let dead_leases = self.dead_leases.iter().map(u64::to_string);
        let value = json!({
            "history_id": self.history_id,
            "revision": self.revision,
            "instances": self.instances,
            "changes": self.changes,
            "leases": self.leases.iter().map(GrantedLease::record).collect::<Vec<_>>(),
            "dead_leases": dead_leases.collect::<Vec<_>>(),
        });
        let text = serde_json::to_string_pretty(&value).expect("it is JSON");
        fs::write(path, text + "\n").expect("it can be written");
    }

    pub(crate) fn instances_in(&self, namespace: &str) -> Vec<Value> {
        within(&self.instances, namespace, "/namespace")
    }

    pub(crate) fn changes_in(&self, namespace: &str) -> Vec<Value> {
        within(&self.changes, namespace, "/instance/namespace")
    }
}

impl GrantedLease {
    fn read(value: &Value) -> Self {
        let part = |name: &str| text_of(&value[name]);
        let identity = (part("namespace"), part("service"), part("id"));
        Self { identity, lease_id: lease_of(&value["lease_id"]) }
    }

    fn record(&self) -> Value {
        let (namespace, service, id) = &self.identity;
        let lease_id = self.lease_id.to_string();
        json!({ "namespace": namespace, "service": service, "id": id, "lease_id": lease_id })
    }
}

/// The records in a namespace.
fn within(records: &[Value], namespace: &str, path: &str) -> Vec<Value> {
    let wanted = |record: &&Value| record.pointer(path).is_some_and(|it| it == namespace);
    records.iter().filter(wanted).cloned().collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn text_of(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn lease_of(value: &Value) -> u64 {
    text_of(value).parse().expect("a lease")
}

/// All of an instance.
pub(crate) fn instance_record(instance: &Instance) -> Value {
    let Instance { namespace, service, id, host, port, ports, zone, version, .. } = instance;
    json!({
        "namespace": namespace,
        "service": service,
        "id": id,
        "host": host,
        "port": port,
        "ports": ports,
        "status": instance.status().as_str_name(),
        "zone": zone,
        "version": version,
        "weight": instance.weight,
        "metadata": instance.metadata,
        "created_revision": instance.created_revision,
        "modified_revision": instance.modified_revision,
        "registered_at": instance.registered_at.as_ref().map(ToString::to_string),
    })
}

/// All of a change.
pub(crate) fn change_record(change: &Change) -> Value {
    json!({
        "kind": change.kind().as_str_name(),
        "reason": change.reason().as_str_name(),
        "revision": change.revision,
        "instance": change.instance.as_ref().map(instance_record),
    })
}
