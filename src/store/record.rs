//! What the disk store writes: model to bytes and back. The fields of a record never change their
//! number or their meaning; new ones get new numbers.

use std::{
    collections::{BTreeMap, HashSet},
    num::NonZeroU16,
    sync::Arc,
    time::Duration,
};

use prost::{
    Enumeration, Message,
    encoding::{WireType, encode_key, encode_varint},
};

use crate::{
    model::{
        Change, ChangeKind, Content, Host, Instance, InstanceId, LeaseId, LeaseTerms, Metadata,
        Name, Presence, RemovalReason, Revision, ServiceKey, Status, Version, WallTime,
    },
    registry::Stay,
};

/// The keys of services, one of each.
#[derive(Debug, Default)]
pub(super) struct Keys(HashSet<Arc<ServiceKey>>);

impl Keys {
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
    /// Empty: none.
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
pub(super) struct StayRecord {
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

/// A change.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ChangeRecord {
    /// An [`InstanceRecord`].
    #[prost(bytes = "vec", tag = "1")]
    instance: Vec<u8>,
    /// As well; of an update.
    #[prost(bytes = "vec", tag = "2")]
    before: Vec<u8>,
    #[prost(bool, tag = "3")]
    replaced: bool,
    /// Of a removal.
    #[prost(enumeration = "ReasonRecord", tag = "4")]
    removed: i32,
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

/// The bytes of an [`InstanceRecord`], made without making one: each batch makes one for each of its
/// changes.
pub(super) fn encode_instance(instance: &Instance) -> Vec<u8> {
    let content = &instance.content;
    let status = match content.status {
        Status::Starting => StatusRecord::Starting,
        Status::Up => StatusRecord::Up,
        Status::Draining => StatusRecord::Draining,
        Status::Down => StatusRecord::Down,
    };
    let mut fields = Fields(Vec::with_capacity(256));
    fields.text(1, instance.service.namespace.as_str());
    fields.text(2, instance.service.service.as_str());
    fields.text(3, instance.id.as_str());
    fields.text(4, content.host.as_str());
    fields.number(5, content.port.get().into());
    for (name, port) in &content.ports {
        fields.entry(6, |entry| {
            entry.text(1, name.as_str());
            entry.number(2, port.get().into());
        });
    }
    fields.number(7, status as u64);
    fields.text(8, content.zone.as_ref().map(Name::as_str).unwrap_or_default());
    fields.text(9, content.version.as_str());
    fields.number(10, content.weight.into());
    for (key, value) in content.metadata.iter() {
        fields.entry(11, |entry| {
            entry.text(1, key);
            entry.text(2, value);
        });
    }
    fields.number(12, u64::from(instance.presence == Presence::Suspect));
    fields.number(13, instance.created.0);
    fields.number(14, instance.modified.0);
    fields.number(15, instance.registered_at.0);
    fields.0
}

/// Fields on the wire. Those that are empty or 0 are left out.
struct Fields(Vec<u8>);

impl Fields {
    fn number(&mut self, tag: u32, number: u64) {
        if number != 0 {
            encode_key(tag, WireType::Varint, &mut self.0);
            encode_varint(number, &mut self.0);
        }
    }

    fn text(&mut self, tag: u32, text: &str) {
        if !text.is_empty() {
            self.bytes(tag, text.as_bytes());
        }
    }

    fn bytes(&mut self, tag: u32, bytes: &[u8]) {
        encode_key(tag, WireType::LengthDelimited, &mut self.0);
        encode_varint(bytes.len() as u64, &mut self.0);
        self.0.extend_from_slice(bytes);
    }

    /// An entry of a map.
    fn entry(&mut self, tag: u32, put: impl FnOnce(&mut Self)) {
        let mut entry = Self(Vec::new());
        put(&mut entry);
        self.bytes(tag, &entry.0);
    }
}

impl InstanceRecord {
    /// The instance, whose service's key is shared with others; `Err` names the field that can't be one
    /// of ours.
    pub(super) fn read(bytes: &[u8], keys: &mut Keys) -> Result<Instance, &'static str> {
        Self::decode(bytes).map_err(|_| "record")?.into_instance(keys)
    }

    fn into_instance(self, keys: &mut Keys) -> Result<Instance, &'static str> {
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
        let content = Content {
            host: Host::parse(&self.host, usize::MAX).map_err(|_| "host")?,
            port: port(self.port).ok_or("port")?,
            ports: ports.into(),
            status,
            zone,
            version: Version::parse(&self.version, usize::MAX).map_err(|_| "version")?,
            weight: self.weight,
            metadata: Metadata::new(&self.metadata),
        };
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

impl StayRecord {
    /// A new identity under its first lease, without its instance.
    pub(super) fn new(lease: LeaseId, terms: LeaseTerms) -> Self {
        let first_generation = lease.generation();
        Self { first_generation, ..Self::default() }.under(lease, terms)
    }

    /// The same under another lease.
    pub(super) fn under(self, lease: LeaseId, terms: LeaseTerms) -> Self {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self {
            lease: lease.bits(),
            ttl_ns: nanos(terms.ttl),
            disconnect_grace_ns: nanos(terms.disconnect_grace),
            ..self
        }
    }

    /// The stay; `Err` names the field that can't be one of ours.
    pub(super) fn read(bytes: &[u8], keys: &mut Keys) -> Result<Stay, &'static str> {
        let record = Self::decode(bytes).map_err(|_| "record")?;
        Ok(Stay {
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

impl From<&Stay> for StayRecord {
    fn from(stay: &Stay) -> Self {
        let (first_generation, instance) = (stay.first_generation, encode_instance(&stay.instance));
        Self { first_generation, instance, ..Self::new(stay.lease, stay.terms) }
    }
}

impl ChangeRecord {
    /// A change of the given kind to what was `before`, if it was.
    pub(super) fn new(kind: &ChangeKind, instance: Vec<u8>, before: Vec<u8>) -> Self {
        let mut record = Self { instance, ..Self::default() };
        match kind {
            ChangeKind::Added => {}
            ChangeKind::Updated { replaced, .. } => {
                record.before = before;
                record.replaced = *replaced;
            }
            ChangeKind::Removed(reason) => record.set_removed(match reason {
                RemovalReason::Deregistered => ReasonRecord::Deregistered,
                RemovalReason::Expired => ReasonRecord::Expired,
                RemovalReason::Disconnected => ReasonRecord::Disconnected,
                RemovalReason::Evicted => ReasonRecord::Evicted,
            }),
        }
        record
    }

    /// As [`InstanceRecord::read`].
    pub(super) fn read(bytes: &[u8], keys: &mut Keys) -> Result<Change, &'static str> {
        let record = Self::decode(bytes).map_err(|_| "record")?;
        let kind = match record.removed() {
            ReasonRecord::NotRemoved if record.before.is_empty() => ChangeKind::Added,
            ReasonRecord::NotRemoved => ChangeKind::Updated {
                before: Arc::new(InstanceRecord::read(&record.before, keys)?),
                replaced: record.replaced,
            },
            ReasonRecord::Deregistered => ChangeKind::Removed(RemovalReason::Deregistered),
            ReasonRecord::Expired => ChangeKind::Removed(RemovalReason::Expired),
            ReasonRecord::Disconnected => ChangeKind::Removed(RemovalReason::Disconnected),
            ReasonRecord::Evicted => ChangeKind::Removed(RemovalReason::Evicted),
        };
        let instance = Arc::new(InstanceRecord::read(&record.instance, keys)?);
        Ok(Change { kind, instance })
    }
}
