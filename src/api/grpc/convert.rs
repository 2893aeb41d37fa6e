//! Wire to model and back: the one place that converts.

use std::{collections::BTreeMap, num::NonZeroU16, time::Duration};

use super::{proto, violations::Violations};
use crate::{
    model::{
        Content, Cursor, DEFAULT_WEIGHT, Filter, HistoryId, Host, Instance, InstanceId, LeaseId,
        LeaseTerms, Limits, Metadata, Name, Page, Parts, Presence, Revision, ServiceKey, Status,
        Version, WallTime,
    },
    protobuf::{Fields, number_len, text_len},
    registry::{Patch, Target},
};

/// The time to live of those who name none.
const TTL_DEFAULT: Duration = Duration::from_secs(15);
/// The grace after a disconnect of those who name none.
const GRACE_DEFAULT: Duration = Duration::from_secs(3);

/// Reads requests against the limits and notes what is wrong with them.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    limits: &'a Limits,
    pub(super) violations: Violations,
}

impl<'a> Reader<'a> {
    pub(super) fn new(limits: &'a Limits) -> Self {
        Self { limits, violations: Violations::default() }
    }

    /// A namespace; nothing means the default one.
    pub(super) fn namespace(&mut self, path: &str, text: &str) -> Option<Name> {
        if text.is_empty() { Some(Name::default_namespace()) } else { self.name(path, text) }
    }

    /// A name that must be there.
    pub(super) fn name(&mut self, path: &str, text: &str) -> Option<Name> {
        self.violations.check(path, Name::parse(text, self.limits.name_bytes_max))
    }

    /// An id that must be there.
    pub(super) fn id(&mut self, path: &str, text: &str) -> Option<InstanceId> {
        self.violations.check(path, InstanceId::parse(text, self.limits.id_bytes_max))
    }

    /// A service named by two fields of the same message.
    pub(super) fn service(
        &mut self,
        within: &str,
        namespace: &str,
        service: &str,
    ) -> Option<ServiceKey> {
        let namespace = self.namespace(&format!("{within}namespace"), namespace);
        let service = self.name(&format!("{within}service"), service);
        Some(ServiceKey { namespace: namespace?, service: service? })
    }

    /// The page of a service's instances; `Some(None)`: everything in one answer. The service is none
    /// where it can't be read.
    pub(super) fn page(
        &mut self,
        size: u32,
        token: &str,
        service: Option<&ServiceKey>,
    ) -> Option<Option<Page>> {
        let page = Page::parse(size, token, service?, self.limits.id_bytes_max);
        self.violations.check("page_token", page)
    }

    /// Which instance is meant: by its lease, or by its identity where there is none.
    pub(super) fn target(
        &mut self,
        lease: u64,
        namespace: &str,
        service: &str,
        id: &str,
    ) -> Option<Target> {
        if lease != 0 {
            return Some(Target::Lease(LeaseId::from_bits(lease)));
        }
        let service = self.service("", namespace, service);
        let id = self.id("id", id);
        Some(Target::Identity(service?, id?))
    }

    /// What an instance says of itself.
    pub(super) fn content(&mut self, instance: &proto::Instance) -> Option<Content> {
        let host = Host::parse(&instance.host, self.limits.host_bytes_max);
        let host = self.violations.check("instance.host", host);
        let port = self.port("instance.port", instance.port);
        let ports = self.ports(&instance.ports);
        let status = match instance.status {
            0 => Some(Status::Up),
            status => self.status(status),
        };
        let zone = self.zone(&instance.zone);
        let version = self.version(&instance.version);
        let metadata = self.metadata("instance.metadata", &instance.metadata);
        Some(Content::from(&Parts {
            host: host?,
            port: port?,
            ports: ports?,
            status: status?,
            zone: zone?,
            version: version?,
            weight: instance.weight.unwrap_or(DEFAULT_WEIGHT),
            metadata: metadata?,
        }))
    }

    fn port(&mut self, path: &str, number: u32) -> Option<NonZeroU16> {
        let port = u16::try_from(number).ok().and_then(NonZeroU16::new);
        self.violations.check(path, port.ok_or("must be 1 to 65535"))
    }

    fn ports(&mut self, ports: &BTreeMap<String, u32>) -> Option<Box<[(Name, NonZeroU16)]>> {
        let path = "instance.ports";
        if !self.count(path, ports.len(), self.limits.ports_max) {
            return None;
        }
        let mut read = Vec::with_capacity(ports.len());
        for (name, number) in ports {
            let path = entry_path(path, name);
            let name = self.name(&path, name);
            let number = self.port(&path, *number);
            read.extend(name.zip(number));
        }
        (read.len() == ports.len()).then(|| read.into())
    }

    fn status(&mut self, status: i32) -> Option<Status> {
        let read = match proto::Status::try_from(status) {
            Ok(proto::Status::Starting) => Ok(Status::Starting),
            Ok(proto::Status::Up) => Ok(Status::Up),
            Ok(proto::Status::Draining) => Ok(Status::Draining),
            Ok(proto::Status::Down) => Ok(Status::Down),
            Ok(proto::Status::Unspecified) => Err("must be given"),
            Ok(proto::Status::Suspect) => Err("is set by the server alone"),
            Err(_) => Err("is no status"),
        };
        self.violations.check("instance.status", read)
    }

    /// A zone; `Some(None)` is none.
    fn zone(&mut self, zone: &str) -> Option<Option<Name>> {
        if zone.is_empty() { Some(None) } else { self.name("instance.zone", zone).map(Some) }
    }

    fn version(&mut self, version: &str) -> Option<Version> {
        let version = Version::parse(version, self.limits.name_bytes_max);
        self.violations.check("instance.version", version)
    }

    fn metadata(&mut self, path: &str, entries: &BTreeMap<String, String>) -> Option<Metadata> {
        let limits = self.limits;
        let mut fits = self.count(path, entries.len(), limits.metadata_entries_max);
        let mut total = 0;
        for (key, value) in entries {
            total += key.len() + value.len();
            if key.is_empty() {
                self.violations.bad(entry_path(path, key), "the key must not be empty");
                fits = false;
            }
            for (what, bytes, bytes_max) in [
                ("key", key.len(), limits.metadata_key_bytes_max),
                ("value", value.len(), limits.metadata_value_bytes_max),
            ] {
                if bytes > bytes_max {
                    let reason = format!("the {what} has {bytes} bytes, at most {bytes_max}");
                    self.violations.over_limit(entry_path(path, key), reason);
                    fits = false;
                }
            }
        }
        let total_max = limits.metadata_bytes_max;
        if total > total_max {
            let reason = format!("has {total} bytes in all, at most {total_max} are allowed");
            self.violations.over_limit(path, reason);
            fits = false;
        }
        fits.then(|| Metadata::new(entries))
    }

    fn count(&mut self, path: &str, count: usize, count_max: usize) -> bool {
        if count > count_max {
            let reason = format!("has {count} entries, at most {count_max} are allowed");
            self.violations.over_limit(path, reason);
        }
        count <= count_max
    }

    /// Leases of a heartbeat.
    pub(super) fn leases(&mut self, leases: &[u64]) -> bool {
        self.count("lease_ids", leases.len(), self.limits.heartbeat_leases_max)
    }

    /// Services of a watch.
    pub(super) fn watched_services(
        &mut self,
        namespace: Option<&Name>,
        services: &[String],
    ) -> Option<Vec<ServiceKey>> {
        if !self.count("services", services.len(), self.limits.watch_services_max) {
            return None;
        }
        let mut read = Vec::with_capacity(services.len());
        for (index, service) in services.iter().enumerate() {
            let service = self.name(&format!("services[{index}]"), service);
            let key = namespace.cloned().zip(service);
            read.extend(key.map(|(namespace, service)| ServiceKey { namespace, service }));
        }
        (read.len() == services.len()).then_some(read)
    }

    /// How long a lease lives.
    pub(super) fn terms(
        &mut self,
        ttl: Option<prost_types::Duration>,
        grace: Option<prost_types::Duration>,
    ) -> Option<LeaseTerms> {
        let in_range = |ttl: &Duration| (LeaseTerms::TTL_MIN..=LeaseTerms::TTL_MAX).contains(ttl);
        let ttl = match ttl {
            None => Some(TTL_DEFAULT),
            Some(ttl) => {
                let ttl = duration(ttl).filter(in_range);
                self.violations.check("ttl", ttl.ok_or("must be 1 s to 5 min"))
            }
        };
        let longest = ttl.unwrap_or(LeaseTerms::TTL_MAX);
        let grace = match grace {
            None => Some(GRACE_DEFAULT.min(longest)),
            Some(grace) => {
                let grace = duration(grace).filter(|grace| *grace <= longest);
                let grace = grace.ok_or("must be 0 s to the TTL");
                self.violations.check("disconnect_grace", grace)
            }
        };
        Some(LeaseTerms { ttl: ttl?, disconnect_grace: grace? })
    }

    /// What to change of an instance.
    pub(super) fn patch(
        &mut self,
        instance: &proto::Instance,
        mask: Option<&prost_types::FieldMask>,
    ) -> Option<Patch> {
        let paths = mask.map(|mask| mask.paths.as_slice()).unwrap_or_default();
        if paths.is_empty() {
            self.violations.bad("update_mask", "must name what to change");
            return None;
        }
        let mut patch = Patch::default();
        for (index, path) in paths.iter().enumerate() {
            match path.as_str() {
                "status" => patch.status = self.status(instance.status),
                "weight" => patch.weight = Some(instance.weight.unwrap_or(DEFAULT_WEIGHT)),
                "metadata" => {
                    patch.metadata = self.metadata("instance.metadata", &instance.metadata);
                }
                "version" => patch.version = self.version(&instance.version),
                "zone" => patch.zone = self.zone(&instance.zone),
                _ => {
                    let path = format!("update_mask.paths[{index}]");
                    let known = "must be status, weight, metadata, version or zone";
                    self.violations.bad(path, known);
                    if index >= 64 {
                        return None;
                    }
                }
            }
        }
        Some(patch)
    }

    /// A filter; none matches everything.
    pub(super) fn filter(&mut self, filter: Option<proto::Filter>) -> Option<Filter> {
        let filter = filter.unwrap_or_default();
        let count_max = self.limits.filter_entries_max;
        let zones = self.count("filter.zones", filter.zones.len(), count_max);
        let versions = self.count("filter.versions", filter.versions.len(), count_max);
        let metadata = self.count("filter.metadata", filter.metadata.len(), count_max);
        (zones && versions && metadata).then(|| Filter {
            zones: filter.zones,
            versions: filter.versions,
            metadata: Metadata::new(&filter.metadata),
        })
    }
}

/// The path of a map's entry.
fn entry_path(path: &str, key: &str) -> String {
    let short = &key[..key.floor_char_boundary(64)];
    let dots = if short.len() < key.len() { "…" } else { "" };
    format!("{path}[{short:?}{dots}]")
}

/// A length of time that is not negative; `None` for any other, and where the nanoseconds are not
/// those of a second.
fn duration(wire: prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(wire.seconds).ok()?;
    let nanos = u32::try_from(wire.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos))
}

/// A position that a peer gave; `None` if it can't be one of ours.
pub(super) fn cursor_from_wire(cursor: &proto::Cursor) -> Option<Cursor> {
    let history = HistoryId::parse(&cursor.history_id)?;
    Some(Cursor { history, revision: Revision(cursor.revision) })
}

pub(super) fn cursor_to_wire(cursor: Cursor) -> proto::Cursor {
    proto::Cursor { history_id: cursor.history.to_string(), revision: cursor.revision.0 }
}

pub(super) fn duration_to_wire(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

pub(super) fn time_to_wire(time: WallTime) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(time.0 / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(time.0 % 1000 * 1_000_000).unwrap_or(0),
    }
}

/// The bytes of a `waypost.v1.Instance`.
pub(super) fn instance_bytes(instance: &Instance) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    put_instance(instance, &mut bytes);
    bytes
}

/// Puts the bytes of a `waypost.v1.Instance` behind others, without making one: every lookup, snapshot
/// and change tells of some.
pub(super) fn put_instance(instance: &Instance, bytes: &mut Vec<u8>) {
    let content = instance.content.view();
    let mut fields = Fields(bytes);
    fields.text(1, instance.service.namespace.as_str());
    fields.text(2, instance.service.service.as_str());
    fields.text(3, instance.id.as_str());
    fields.text(4, content.host);
    fields.number(5, content.port.get().into());
    for (name, port) in content.ports() {
        let port = u64::from(port.get());
        fields.begin(6, text_len(name) + number_len(port));
        fields.text(1, name);
        fields.number(2, port);
    }
    fields.number(7, status_to_wire(instance) as u64);
    fields.text(8, content.zone);
    fields.text(9, content.version);
    // Told also where it is 0.
    fields.present(10, content.weight.into());
    for (key, value) in content.metadata() {
        fields.begin(11, text_len(key) + text_len(value));
        fields.text(1, key);
        fields.text(2, value);
    }
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
        // The lease may be alive or held: an instance that declared that it takes no traffic shows
        // what it declared.
        (_, Status::Starting) => proto::Status::Starting,
        (_, Status::Draining) => proto::Status::Draining,
        (_, Status::Down) => proto::Status::Down,
        (Presence::Confirmed, Status::Up) => proto::Status::Up,
        (Presence::Suspect, Status::Up) => proto::Status::Suspect,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use waypost_core::testing::{id, key, name, parts};

    use super::*;

    #[test]
    fn an_instance_is_written_as_the_message_that_it_is() {
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
