//! Conversion between wire and model, by the rules of the core. Names every invalid field, as a
//! server does. Never repeats a value.

use std::{collections::BTreeMap, fmt::Display, num::NonZeroU16, time::Duration};

use tonic::{Code, Status as GrpcStatus};
use tonic_types::{ErrorDetails, StatusExt};
use waypost_core::{
    model::{
        Change, ChangeKind, Content, DEFAULT_WEIGHT, Filter, Host, Instance, InstanceId, LeaseId,
        LeaseTerms, Limits, Metadata, Name, Page, Parts, Presence, RemovalReason, ServiceKey,
        Status, Version, Visibility,
    },
    registry::{Patch, Refusal, Target},
};

use crate::proto;

const TTL_DEFAULT: Duration = Duration::from_secs(15);
const GRACE_DEFAULT: Duration = Duration::from_secs(3);

/// Reads one request, and collects its invalid fields.
pub(super) struct RequestReader<'a> {
    limits: &'a Limits,
    invalid: ErrorDetails,
}

impl<'a> RequestReader<'a> {
    pub(super) fn new(limits: &'a Limits) -> Self {
        Self { limits, invalid: ErrorDetails::default() }
    }

    /// Returns the value, or `INVALID_ARGUMENT` with all invalid fields.
    pub(super) fn finish<T>(self, read: Option<T>) -> Result<T, GrpcStatus> {
        let first = self.invalid.bad_request().and_then(|bad| bad.field_violations.first());
        let message = match (read, first) {
            (Some(read), None) => return Ok(read),
            (_, Some(first)) => format!("{}: {}", first.field, first.description),
            (None, None) => "invalid request".to_owned(),
        };
        Err(GrpcStatus::with_error_details(Code::InvalidArgument, message, self.invalid))
    }

    fn check<T, E: Display>(&mut self, field: &str, parsed: Result<T, E>) -> Option<T> {
        parsed
            .map_err(|error| self.invalid.add_bad_request_violation(field, error.to_string()))
            .ok()
    }

    /// Reads a namespace; empty is the default one.
    pub(super) fn namespace(&mut self, field: &str, text: &str) -> Option<Name> {
        if text.is_empty() { Some(Name::default_namespace()) } else { self.name(field, text) }
    }

    pub(super) fn name(&mut self, field: &str, text: &str) -> Option<Name> {
        let name = Name::parse(text, self.limits.name_bytes_max);
        self.check(field, name)
    }

    /// Reads the service that two fields name.
    pub(super) fn service(
        &mut self,
        parent: &str,
        namespace: &str,
        service: &str,
    ) -> Option<ServiceKey> {
        let namespace = self.namespace(&format!("{parent}namespace"), namespace);
        let service = self.name(&format!("{parent}service"), service);
        Some(ServiceKey { namespace: namespace?, service: service? })
    }

    /// Reads an instance's id.
    pub(super) fn id(&mut self, field: &str, text: &str) -> Option<InstanceId> {
        let id = InstanceId::parse(text, self.limits.id_bytes_max);
        self.check(field, id)
    }

    /// Reads the page of a lookup; `Some(None)`: everything.
    pub(super) fn page(
        &mut self,
        size: u32,
        token: &str,
        service: Option<&ServiceKey>,
    ) -> Option<Option<Page>> {
        let page = Page::parse(size, token, service?, self.limits.id_bytes_max);
        self.check("page_token", page)
    }

    /// Reads a target: a lease, or an identity if the lease is 0.
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

    /// Reads the content of a registration.
    pub(super) fn content(&mut self, instance: &proto::Instance) -> Option<Content> {
        let host = Host::parse(&instance.host, self.limits.host_bytes_max);
        let host = self.check("instance.host", host);
        let port = self.port("instance.port", instance.port);
        let ports = self.ports(&instance.ports);
        let status = match instance.status {
            0 => Some(Status::Up),
            status => self.status(status),
        };
        let zone = self.zone(&instance.zone);
        let version = self.version(&instance.version);
        Some(Content::from(&Parts {
            host: host?,
            port: port?,
            ports: ports?,
            status: status?,
            zone: zone?,
            version: version?,
            weight: instance.weight.unwrap_or(DEFAULT_WEIGHT),
            metadata: Metadata::new(&instance.metadata),
        }))
    }

    fn port(&mut self, field: &str, number: u32) -> Option<NonZeroU16> {
        let port = u16::try_from(number).ok().and_then(NonZeroU16::new);
        self.check(field, port.ok_or("must be 1 to 65535"))
    }

    fn ports(&mut self, ports: &BTreeMap<String, u32>) -> Option<Box<[(Name, NonZeroU16)]>> {
        let mut read = Vec::with_capacity(ports.len());
        for (name, number) in ports {
            let name = self.name("instance.ports", name);
            let number = self.port("instance.ports", *number);
            read.push((name?, number?));
        }
        Some(read.into())
    }

    fn status(&mut self, status: i32) -> Option<Status> {
        let read = match proto::Status::try_from(status) {
            Ok(proto::Status::Starting) => Ok(Status::Starting),
            Ok(proto::Status::Up) => Ok(Status::Up),
            Ok(proto::Status::Draining) => Ok(Status::Draining),
            Ok(proto::Status::Down) => Ok(Status::Down),
            _ => Err("must be STARTING, UP, DRAINING or DOWN"),
        };
        self.check("instance.status", read)
    }

    /// Reads a zone; `Some(None)` is none.
    fn zone(&mut self, zone: &str) -> Option<Option<Name>> {
        if zone.is_empty() { Some(None) } else { self.name("instance.zone", zone).map(Some) }
    }

    fn version(&mut self, version: &str) -> Option<Version> {
        let version = Version::parse(version, self.limits.name_bytes_max);
        self.check("instance.version", version)
    }

    /// Reads the terms of a lease.
    pub(super) fn terms(
        &mut self,
        ttl: Option<prost_types::Duration>,
        grace: Option<prost_types::Duration>,
    ) -> Option<LeaseTerms> {
        let in_range = |ttl: &Duration| (LeaseTerms::TTL_MIN..=LeaseTerms::TTL_MAX).contains(ttl);
        let ttl = ttl.map_or(Some(TTL_DEFAULT), duration).filter(in_range);
        let ttl = self.check("ttl", ttl.ok_or("must be 1 s to 5 min"));
        let longest = ttl.unwrap_or(LeaseTerms::TTL_MAX);
        let grace = grace.map_or(Some(GRACE_DEFAULT.min(longest)), duration);
        let grace = grace.filter(|grace| *grace <= longest).ok_or("must be 0 s to the TTL");
        let disconnect_grace = self.check("disconnect_grace", grace);
        Some(LeaseTerms { ttl: ttl?, disconnect_grace: disconnect_grace? })
    }

    /// Reads the changes of an update.
    pub(super) fn patch(
        &mut self,
        instance: &proto::Instance,
        mask: Option<&prost_types::FieldMask>,
    ) -> Option<Patch> {
        let paths = mask.map(|mask| mask.paths.as_slice()).unwrap_or_default();
        if paths.is_empty() {
            return self.check("update_mask", Err("must name the fields to change"));
        }
        let mut patch = Patch::default();
        for (index, path) in paths.iter().enumerate() {
            match path.as_str() {
                "status" => patch.status = self.status(instance.status),
                "weight" => patch.weight = Some(instance.weight.unwrap_or(DEFAULT_WEIGHT)),
                "metadata" => patch.metadata = Some(Metadata::new(&instance.metadata)),
                "version" => patch.version = self.version(&instance.version),
                "zone" => patch.zone = self.zone(&instance.zone),
                _ => {
                    let field = format!("update_mask.paths[{index}]");
                    let known = "must be status, weight, metadata, version or zone";
                    self.invalid.add_bad_request_violation(field, known);
                }
            }
        }
        Some(patch)
    }
}

/// Converts a filter; none matches everything.
pub(super) fn filter(filter: Option<proto::Filter>) -> Filter {
    let proto::Filter { zones, versions, metadata } = filter.unwrap_or_default();
    Filter { zones, versions, metadata: Metadata::new(&metadata) }
}

fn duration(duration: prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(duration.seconds).ok()?;
    let nanos = u32::try_from(duration.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos))
}

/// Converts a refusal to a status with the details that clients read.
pub(super) fn refused(refusal: &Refusal) -> GrpcStatus {
    let message = refusal.to_string();
    match refusal {
        Refusal::NoSuchInstance { .. } | Refusal::NoSuchLease(_) => GrpcStatus::not_found(message),
        Refusal::Fenced(lease) => {
            let (kind, subject) = ("FENCED", format!("lease_id {lease}"));
            let details =
                ErrorDetails::with_precondition_failure_violation(kind, subject, &message);
            GrpcStatus::with_error_details(Code::FailedPrecondition, message, details)
        }
        Refusal::Full { .. } | Refusal::NamespaceFull { .. } => {
            let details = ErrorDetails::with_quota_failure_violation("instances", &message);
            GrpcStatus::with_error_details(Code::ResourceExhausted, message, details)
        }
    }
}

/// Converts an instance.
pub(super) fn instance(instance: &Instance) -> proto::Instance {
    let content = instance.content.view();
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let millis = i64::try_from(instance.registered_at.0).unwrap_or(i64::MAX);
    let nanos = i32::try_from(millis % 1_000 * 1_000_000).unwrap_or_default();
    proto::Instance {
        namespace: instance.service.namespace.to_string(),
        service: instance.service.service.to_string(),
        id: instance.id.to_string(),
        host: content.host.to_owned(),
        port: content.port.get().into(),
        ports: content.ports().map(|(name, port)| (name.to_owned(), port.get().into())).collect(),
        status: status(instance).into(),
        zone: content.zone.to_owned(),
        version: content.version.to_owned(),
        weight: Some(content.weight),
        metadata: content.metadata().map(owned).collect(),
        created_revision: instance.created.0,
        modified_revision: instance.modified.0,
        registered_at: Some(prost_types::Timestamp { seconds: millis / 1_000, nanos }),
    }
}

fn status(instance: &Instance) -> proto::Status {
    match (instance.content.status(), instance.presence) {
        (Status::Starting, _) => proto::Status::Starting,
        (Status::Draining, _) => proto::Status::Draining,
        (Status::Down, _) => proto::Status::Down,
        (Status::Up, Presence::Confirmed) => proto::Status::Up,
        (Status::Up, Presence::Suspect) => proto::Status::Suspect,
    }
}

/// Converts a change, as a filter shows it.
pub(super) fn change(change: &Change, visibility: Visibility) -> proto::Change {
    use proto::{ChangeKind as Kind, ChangeReason as Reason};
    let unfiltered = match &change.kind {
        ChangeKind::Added => (Kind::Added, Reason::Unspecified),
        ChangeKind::Updated { replaced: true, .. } => (Kind::Updated, Reason::Replaced),
        ChangeKind::Updated { .. } => (Kind::Updated, Reason::Unspecified),
        ChangeKind::Removed(RemovalReason::Deregistered) => (Kind::Removed, Reason::Deregistered),
        ChangeKind::Removed(RemovalReason::Expired) => (Kind::Removed, Reason::Expired),
        ChangeKind::Removed(RemovalReason::Disconnected) => (Kind::Removed, Reason::Disconnected),
        ChangeKind::Removed(RemovalReason::Evicted) => (Kind::Removed, Reason::Evicted),
    };
    let (kind, reason) = match visibility {
        Visibility::Unchanged => unfiltered,
        Visibility::Added => (Kind::Added, Reason::Unspecified),
        Visibility::Removed => (Kind::Removed, Reason::Unspecified),
    };
    proto::Change {
        kind: kind.into(),
        instance: Some(instance(&change.instance)),
        reason: reason.into(),
        revision: change.revision().0,
    }
}
