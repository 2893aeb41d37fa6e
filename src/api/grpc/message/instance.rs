//! Instances to the wire.

use crate::{
    api::grpc::proto,
    model::{Instance, Presence, Status},
    protobuf::{Fields, number_len, put_identity_and_content},
};

/// Encodes a `waypost.v1.Instance`.
pub(in crate::api::grpc) fn instance_bytes(instance: &Instance) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    put_instance(instance, &mut bytes);
    bytes
}

/// Appends the bytes of a `waypost.v1.Instance` without building one: every lookup, snapshot and
/// change has some.
pub(in crate::api::grpc) fn put_instance(instance: &Instance, bytes: &mut Vec<u8>) {
    let mut fields = Fields(bytes);
    let status = status_to_wire(instance) as u64;
    put_identity_and_content(&mut fields, instance, status, Fields::present);
    fields.number(12, instance.created.0);
    fields.number(13, instance.modified.0);
    let at = instance.registered_at.0;
    let (seconds, nanos) = (at / 1000, at % 1000 * 1_000_000);
    fields.begin(14, number_len(seconds) + number_len(nanos));
    fields.number(1, seconds);
    fields.number(2, nanos);
}

fn status_to_wire(instance: &Instance) -> proto::Status {
    match (instance.presence, instance.content.status()) {
        // An instance that takes no traffic shows its own status, even if its lease is held.
        (_, Status::Starting) => proto::Status::Starting,
        (_, Status::Draining) => proto::Status::Draining,
        (_, Status::Down) => proto::Status::Down,
        (Presence::Confirmed, Status::Up) => proto::Status::Up,
        (Presence::Suspect, Status::Up) => proto::Status::Suspect,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, num::NonZeroU16};

    use prost::Message;
    use waypost_core::testing::{id, key, name, parts};

    use super::*;
    use crate::model::{Content, Metadata, Parts, Revision, Version, WallTime};

    #[test]
    fn instance_has_the_bytes_of_its_message() {
        let entries = [("a", ""), ("", "b"), ("c", "d")];
        let entries = entries.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let metadata = BTreeMap::from(entries);
        let ports = [("admin", 1), ("metrics", 65_535)];
        let full = Parts {
            ports: ports.map(|(text, port)| (name(text), NonZeroU16::new(port).unwrap())).into(),
            status: Status::Down,
            zone: Some(name("eu-1")),
            version: Version::parse("v 7", 128).unwrap(),
            weight: 0,
            metadata: Metadata::new(&metadata),
            ..parts(8_080)
        };
        let instance = |parts: &Parts, presence, at| Instance {
            service: key("shop/orders").into(),
            id: id("i"),
            content: Content::from(parts),
            presence,
            created: Revision(3),
            modified: Revision(1 << 40),
            registered_at: WallTime(at),
        };
        let whole = proto::Instance {
            namespace: "shop".into(),
            service: "orders".into(),
            id: "i".into(),
            host: "10.0.0.1".into(),
            port: 8_080,
            ports: ports.map(|(name, port)| (name.to_owned(), port.into())).into(),
            status: proto::Status::Down.into(),
            zone: "eu-1".into(),
            version: "v 7".into(),
            weight: Some(0),
            metadata,
            created_revision: 3,
            modified_revision: 1 << 40,
            registered_at: Some(prost_types::Timestamp { seconds: 17, nanos: 5_000_000 }),
        };
        let bare = proto::Instance {
            port: 1,
            ports: BTreeMap::new(),
            status: proto::Status::Suspect.into(),
            zone: String::new(),
            version: String::new(),
            weight: Some(100),
            metadata: BTreeMap::new(),
            registered_at: Some(prost_types::Timestamp { seconds: 0, nanos: 0 }),
            ..whole.clone()
        };
        let of_full = instance_bytes(&instance(&full, Presence::Confirmed, 17_005));
        assert_eq!(of_full, whole.encode_to_vec());
        let of_bare = instance_bytes(&instance(&parts(1), Presence::Suspect, 0));
        assert_eq!(of_bare, bare.encode_to_vec());
    }
}
