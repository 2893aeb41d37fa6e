//! The records of the disk store: model to bytes and back. Pure.
//!
//! Invariant: a field never changes its number or meaning; new fields get new numbers.

use std::{
    collections::{BTreeMap, HashSet},
    mem,
    num::NonZeroU16,
    ops::Range,
    sync::Arc,
    time::Duration,
};

use prost::{Enumeration, Message, encoding::encoded_len_varint};

use crate::{
    model::{
        Change, ChangeKind, Content, Host, Instance, InstanceId, LeaseId, LeaseTerms, Metadata,
        Name, Parts, Presence, RemovalReason, Revision, ServiceKey, Status, Version, WallTime,
    },
    protobuf::{Fields, bytes_len, number_len, put_identity_and_content},
    registry::RestoredLease,
};

/// Shares equal service keys.
#[derive(Debug, Default)]
pub(super) struct KeyInterner(HashSet<Arc<ServiceKey>>);

impl KeyInterner {
    fn share(&mut self, key: ServiceKey) -> Arc<ServiceKey> {
        if let Some(shared) = self.0.get(&key) {
            return Arc::clone(shared);
        }
        let shared = Arc::new(key);
        self.0.insert(Arc::clone(&shared));
        shared
    }
}

/// An instance.
#[derive(Clone, PartialEq, Message)]
pub(super) struct InstanceRecord {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    service: String,
    #[prost(string, tag = "3")]
    id: String,
    #[prost(string, tag = "4")]
    host: String,
    #[prost(uint32, tag = "5")]
    port: u32,
    #[prost(btree_map = "string, uint32", tag = "6")]
    ports: BTreeMap<String, u32>,
    #[prost(enumeration = "StatusRecord", tag = "7")]
    status: i32,
    /// Empty if the instance has no zone.
    #[prost(string, tag = "8")]
    zone: String,
    #[prost(string, tag = "9")]
    version: String,
    #[prost(uint32, tag = "10")]
    weight: u32,
    #[prost(btree_map = "string, string", tag = "11")]
    metadata: BTreeMap<String, String>,
    #[prost(bool, tag = "12")]
    suspect: bool,
    #[prost(uint64, tag = "13")]
    created: u64,
    #[prost(uint64, tag = "14")]
    modified: u64,
    #[prost(uint64, tag = "15")]
    registered_at_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Enumeration)]
#[repr(i32)]
enum StatusRecord {
    Unknown = 0,
    Starting = 1,
    Up = 2,
    Draining = 3,
    Down = 4,
}

/// An instance with its lease.
#[derive(Clone, PartialEq, Message)]
pub(super) struct LeaseRecord {
    #[prost(fixed64, tag = "1")]
    lease: u64,
    #[prost(uint64, tag = "2")]
    first_generation: u64,
    #[prost(uint64, tag = "3")]
    ttl_ns: u64,
    #[prost(uint64, tag = "4")]
    disconnect_grace_ns: u64,
    /// An [`InstanceRecord`].
    #[prost(bytes = "vec", tag = "5")]
    pub(super) instance: Vec<u8>,
}

/// A change, and the changes that follow it in the same row.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ChangeRecord {
    /// An [`InstanceRecord`].
    #[prost(bytes = "vec", tag = "1")]
    instance: Vec<u8>,
    /// An [`InstanceRecord`], of an update only.
    #[prost(bytes = "vec", tag = "2")]
    before: Vec<u8>,
    #[prost(bool, tag = "3")]
    replaced: bool,
    /// The reason of a removal.
    #[prost(enumeration = "ReasonRecord", tag = "4")]
    removed: i32,
    /// The changes that follow, each a [`ChangeRecord`] without followers. Always empty in format
    /// 1.
    #[prost(bytes = "vec", repeated, tag = "5")]
    next: Vec<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Enumeration)]
#[repr(i32)]
enum ReasonRecord {
    NotRemoved = 0,
    Deregistered = 1,
    Expired = 2,
    Disconnected = 3,
    Evicted = 4,
}

/// Appends the bytes of an [`InstanceRecord`] without building one: every batch encodes one for
/// each of its changes.
pub(super) fn put_instance(instance: &Instance, bytes: &mut Vec<u8>) {
    let status = match instance.content.status() {
        Status::Starting => StatusRecord::Starting,
        Status::Up => StatusRecord::Up,
        Status::Draining => StatusRecord::Draining,
        Status::Down => StatusRecord::Down,
    };
    let mut fields = Fields(bytes);
    put_identity_and_content(&mut fields, instance, status as u64, Fields::number);
    fields.number(12, u64::from(instance.presence == Presence::Suspect));
    fields.number(13, instance.created.0);
    fields.number(14, instance.modified.0);
    fields.number(15, instance.registered_at.0);
}

/// Appends the bytes of a [`LeaseRecord`] with the given bytes of its instance.
pub(super) fn put_lease(record: &LeaseRecord, instance: &[u8], bytes: &mut Vec<u8>) {
    let mut fields = Fields(bytes);
    fields.fixed(1, record.lease);
    fields.number(2, record.first_generation);
    fields.number(3, record.ttl_ns);
    fields.number(4, record.disconnect_grace_ns);
    fields.bytes(5, instance);
}

/// The fields of a [`ChangeRecord`] by reference, to be encoded into a row.
pub(super) struct ChangeRecordRef<'a> {
    /// The bytes of an [`InstanceRecord`].
    instance: &'a [u8],
    /// The bytes of an [`InstanceRecord`]; empty unless this is an update.
    before: &'a [u8],
    replaced: bool,
    removed: ReasonRecord,
}

impl<'a> ChangeRecordRef<'a> {
    pub(super) fn new(kind: &ChangeKind, instance: &'a [u8], before: &'a [u8]) -> Self {
        let (replaced, removed) = match kind {
            ChangeKind::Added => (false, ReasonRecord::NotRemoved),
            ChangeKind::Updated { replaced, .. } => (*replaced, ReasonRecord::NotRemoved),
            ChangeKind::Removed(RemovalReason::Deregistered) => (false, ReasonRecord::Deregistered),
            ChangeKind::Removed(RemovalReason::Expired) => (false, ReasonRecord::Expired),
            ChangeKind::Removed(RemovalReason::Disconnected) => (false, ReasonRecord::Disconnected),
            ChangeKind::Removed(RemovalReason::Evicted) => (false, ReasonRecord::Evicted),
        };
        Self { instance, before, replaced, removed }
    }

    /// Returns the bytes that it adds to a row as a follower.
    pub(super) fn next_len(&self) -> usize {
        let len = self.len();
        1 + encoded_len_varint(len as u64) + len
    }

    pub(super) fn len(&self) -> usize {
        let before = if self.before.is_empty() { 0 } else { bytes_len(self.before.len()) };
        let kind = number_len(self.replaced.into()) + number_len(self.removed as u64);
        bytes_len(self.instance.len()) + before + kind
    }

    /// Encodes the first change of a row. Returns the range of the instance's bytes.
    pub(super) fn put_first(&self, row: &mut Vec<u8>) -> Range<usize> {
        let mut fields = Fields(row);
        fields.bytes(1, self.instance);
        let end = fields.0.len();
        if !self.before.is_empty() {
            fields.bytes(2, self.before);
        }
        fields.number(3, self.replaced.into());
        fields.number(4, self.removed as u64);
        end - self.instance.len()..end
    }

    /// Encodes a following change of a row. Returns the range of the instance's bytes.
    pub(super) fn put_next(&self, row: &mut Vec<u8>) -> Range<usize> {
        Fields(row).begin(5, self.len());
        self.put_first(row)
    }
}

impl InstanceRecord {
    /// Decodes an instance and shares its service key. `Err` names the invalid field.
    pub(super) fn read(bytes: &[u8], keys: &mut KeyInterner) -> Result<Instance, &'static str> {
        Self::decode(bytes).map_err(|_| "record")?.into_instance(keys)
    }

    fn into_instance(self, keys: &mut KeyInterner) -> Result<Instance, &'static str> {
        let name = |text: &str, field| Name::parse(text, usize::MAX).map_err(|_| field);
        let port = |port: u32| u16::try_from(port).ok().and_then(NonZeroU16::new);
        let mut ports = Vec::with_capacity(self.ports.len());
        for (port_name, number) in &self.ports {
            ports.push((name(port_name, "ports")?, port(*number).ok_or("ports")?));
        }
        let zone = if self.zone.is_empty() { None } else { Some(name(&self.zone, "zone")?) };
        let status = match self.status() {
            StatusRecord::Unknown => return Err("status"),
            StatusRecord::Starting => Status::Starting,
            StatusRecord::Up => Status::Up,
            StatusRecord::Draining => Status::Draining,
            StatusRecord::Down => Status::Down,
        };
        let content = Content::from(&Parts {
            host: Host::stored(&self.host).map_err(|_| "host")?,
            port: port(self.port).ok_or("port")?,
            ports: ports.into(),
            status,
            zone,
            version: Version::parse(&self.version, usize::MAX).map_err(|_| "version")?,
            weight: self.weight,
            metadata: Metadata::new(&self.metadata),
        });
        Ok(Instance {
            service: keys.share(ServiceKey {
                namespace: name(&self.namespace, "namespace")?,
                service: name(&self.service, "service")?,
            }),
            id: InstanceId::parse(&self.id, usize::MAX).map_err(|_| "id")?,
            content,
            presence: if self.suspect { Presence::Suspect } else { Presence::Confirmed },
            created: Revision(self.created),
            modified: Revision(self.modified),
            registered_at: WallTime(self.registered_at_ms),
        })
    }
}

impl LeaseRecord {
    /// Builds the record of a new identity under its first lease, without its instance.
    pub(super) fn new(lease: LeaseId, terms: LeaseTerms) -> Self {
        let first_generation = lease.generation();
        Self { first_generation, ..Self::default() }.under(lease, terms)
    }

    /// Moves the identity to another lease.
    pub(super) fn under(self, lease: LeaseId, terms: LeaseTerms) -> Self {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self {
            lease: lease.bits(),
            ttl_ns: nanos(terms.ttl),
            disconnect_grace_ns: nanos(terms.disconnect_grace),
            ..self
        }
    }

    /// Decodes an instance with its lease. `Err` names the invalid field.
    pub(super) fn read(
        bytes: &[u8],
        keys: &mut KeyInterner,
    ) -> Result<RestoredLease, &'static str> {
        let record = Self::decode(bytes).map_err(|_| "record")?;
        Ok(RestoredLease {
            instance: Arc::new(InstanceRecord::read(&record.instance, keys)?),
            lease: LeaseId::from_bits(record.lease),
            first_generation: record.first_generation,
            terms: LeaseTerms {
                ttl: Duration::from_nanos(record.ttl_ns),
                disconnect_grace: Duration::from_nanos(record.disconnect_grace_ns),
            },
        })
    }
}

impl From<&RestoredLease> for LeaseRecord {
    fn from(lease: &RestoredLease) -> Self {
        let (first_generation, mut instance) = (lease.first_generation, Vec::new());
        put_instance(&lease.instance, &mut instance);
        Self { first_generation, instance, ..Self::new(lease.lease, lease.terms) }
    }
}

impl ChangeRecord {
    /// Decodes the changes of a row in order. `Err` names the invalid field.
    pub(super) fn read(row: &[u8], keys: &mut KeyInterner) -> Result<Vec<Change>, &'static str> {
        let mut record = Self::decode(row).map_err(|_| "record")?;
        let next = mem::take(&mut record.next);
        let mut changes = Vec::with_capacity(1 + next.len());
        changes.push(record.into_change(keys)?);
        for bytes in next {
            let record = Self::decode(bytes.as_slice()).map_err(|_| "next")?;
            if !record.next.is_empty() {
                return Err("next");
            }
            changes.push(record.into_change(keys)?);
        }
        Ok(changes)
    }

    fn into_change(self, keys: &mut KeyInterner) -> Result<Change, &'static str> {
        let kind = match self.removed() {
            ReasonRecord::NotRemoved if self.before.is_empty() => ChangeKind::Added,
            ReasonRecord::NotRemoved => ChangeKind::Updated {
                before: Arc::new(InstanceRecord::read(&self.before, keys)?),
                replaced: self.replaced,
            },
            ReasonRecord::Deregistered => ChangeKind::Removed(RemovalReason::Deregistered),
            ReasonRecord::Expired => ChangeKind::Removed(RemovalReason::Expired),
            ReasonRecord::Disconnected => ChangeKind::Removed(RemovalReason::Disconnected),
            ReasonRecord::Evicted => ChangeKind::Removed(RemovalReason::Evicted),
        };
        let instance = Arc::new(InstanceRecord::read(&self.instance, keys)?);
        Ok(Change { kind, instance })
    }
}

#[cfg(test)]
mod tests {
    use waypost_core::testing::{id, key, parts};

    use super::*;

    /// Earlier versions accepted them.
    #[test]
    fn hosts_that_are_invalid_by_now_are_read() {
        for host in ["0.0.0.0", "::", "239.1.2.3", "255.255.255.255", "0x7f000001"] {
            assert!(Host::parse(host, 253).is_err(), "{host}");
            let content = Content::from(&Parts { host: Host::stored(host).unwrap(), ..parts(80) });
            let instance = Instance {
                service: Arc::new(key("n/s")),
                id: id("i"),
                content,
                presence: Presence::Suspect,
                created: Revision(1),
                modified: Revision(2),
                registered_at: WallTime(3),
            };
            let mut bytes = Vec::new();
            put_instance(&instance, &mut bytes);
            assert_eq!(
                InstanceRecord::read(&bytes, &mut KeyInterner::default()).unwrap(),
                instance
            );
        }
    }
}
