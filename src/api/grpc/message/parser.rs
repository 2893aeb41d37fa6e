//! Parses requests into the model's types. Finds all invalid fields, not only the first.
//!
//! Pure.

use std::{collections::BTreeMap, num::NonZeroU16, time::Duration};

use super::violations::Violations;
use crate::{
    api::grpc::proto,
    model::{
        Content, DEFAULT_WEIGHT, Filter, Host, InstanceId, LeaseId, LeaseTerms, Limits, Metadata,
        Name, Page, Parts, ServiceKey, Status, Version,
    },
    registry::{Patch, Target},
};

/// The TTL of registrations that name none.
const TTL_DEFAULT: Duration = Duration::from_secs(15);
/// The grace of registrations that name none.
const GRACE_DEFAULT: Duration = Duration::from_secs(3);

/// Parses the fields of one request against the limits, and collects the violations.
#[derive(Debug)]
pub(in crate::api::grpc) struct RequestParser<'a> {
    limits: &'a Limits,
    pub(in crate::api::grpc) violations: Violations,
}

impl<'a> RequestParser<'a> {
    pub(in crate::api::grpc) fn new(limits: &'a Limits) -> Self {
        Self { limits, violations: Violations::default() }
    }

    /// Parses a namespace; the default one if the text is empty.
    pub(in crate::api::grpc) fn namespace(&mut self, path: &str, text: &str) -> Option<Name> {
        if text.is_empty() { Some(Name::default_namespace()) } else { self.name(path, text) }
    }

    /// Parses a required name.
    pub(in crate::api::grpc) fn name(&mut self, path: &str, text: &str) -> Option<Name> {
        self.violations.check(path, Name::parse(text, self.limits.name_bytes_max))
    }

    /// Parses a required id.
    pub(in crate::api::grpc) fn id(&mut self, path: &str, text: &str) -> Option<InstanceId> {
        self.violations.check(path, InstanceId::parse(text, self.limits.id_bytes_max))
    }

    /// Parses a service from two fields of the same message.
    pub(in crate::api::grpc) fn service(
        &mut self,
        within: &str,
        namespace: &str,
        service: &str,
    ) -> Option<ServiceKey> {
        let namespace = self.namespace(&format!("{within}namespace"), namespace);
        let service = self.name(&format!("{within}service"), service);
        Some(ServiceKey { namespace: namespace?, service: service? })
    }

    /// Parses the page of a lookup; `Some(None)`: all instances in one response. `service` is
    /// `None` if it is invalid.
    pub(in crate::api::grpc) fn page(
        &mut self,
        size: u32,
        token: &str,
        service: Option<&ServiceKey>,
    ) -> Option<Option<Page>> {
        let page = Page::parse(size, token, service?, self.limits.id_bytes_max);
        self.violations.check("page_token", page)
    }

    /// Parses the instance to change: by its lease, or by its identity if there is no lease.
    pub(in crate::api::grpc) fn target(
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

    /// Parses the content of an instance.
    pub(in crate::api::grpc) fn content(&mut self, instance: &proto::Instance) -> Option<Content> {
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
            Ok(proto::Status::Unspecified) => Err("is required"),
            Ok(proto::Status::Suspect) => Err("is set only by the server"),
            Err(_) => Err("is not a known status"),
        };
        self.violations.check("instance.status", read)
    }

    /// Parses a zone; `Some(None)` if there is none.
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
                    let reason =
                        format!("the {what} has {bytes} bytes, at most {bytes_max} are allowed");
                    self.violations.over_limit(entry_path(path, key), reason);
                    fits = false;
                }
            }
        }
        let total_max = limits.metadata_bytes_max;
        if total > total_max {
            let reason = format!("has {total} bytes in total, at most {total_max} are allowed");
            self.violations.over_limit(path, reason);
            fits = false;
        }
        fits.then(|| Metadata::new(entries))
    }

    /// Checks a number of entries; returns whether it is within the limit.
    fn count(&mut self, path: &str, count: usize, count_max: usize) -> bool {
        if count > count_max {
            let reason = format!("has {count} entries, at most {count_max} are allowed");
            self.violations.over_limit(path, reason);
        }
        count <= count_max
    }

    /// Checks the number of leases in a heartbeat.
    pub(in crate::api::grpc) fn leases(&mut self, leases: &[u64]) -> bool {
        self.count("lease_ids", leases.len(), self.limits.heartbeat_leases_max)
    }

    /// Parses the services of a watch.
    pub(in crate::api::grpc) fn watched_services(
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

    /// Parses the terms of a lease.
    pub(in crate::api::grpc) fn terms(
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

    /// Parses the changes of an update.
    pub(in crate::api::grpc) fn patch(
        &mut self,
        instance: &proto::Instance,
        mask: Option<&prost_types::FieldMask>,
    ) -> Option<Patch> {
        let paths = mask.map(|mask| mask.paths.as_slice()).unwrap_or_default();
        if paths.is_empty() {
            self.violations.bad("update_mask", "must name the fields to change");
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

    /// Parses a filter; without one, everything matches.
    pub(in crate::api::grpc) fn filter(&mut self, filter: Option<proto::Filter>) -> Option<Filter> {
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

/// Returns the path of a map's entry.
fn entry_path(path: &str, key: &str) -> String {
    let short = &key[..key.floor_char_boundary(64)];
    let dots = if short.len() < key.len() { "…" } else { "" };
    format!("{path}[{short:?}{dots}]")
}

/// Reads a duration; `None` if it is negative or has a second or more of nanoseconds.
fn duration(wire: prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(wire.seconds).ok()?;
    let nanos = u32::try_from(wire.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos))
}
