//! The table of bad requests: each with the refusal that it must get.

mod bodies;
mod fields;
mod requests;
use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use prost_types::Duration;
use tonic::Code;
use waypost_client::proto::{Instance, RegisterRequest, UpdateRequest};
use waypost_testing::{
    http2::framed,
    registry::{instance, register_request},
};

use self::{
    bodies::sizes_and_frames,
    fields::{hosts, metadata, names, ports_and_statuses, terms},
    requests::{heartbeats, reads, removals, several_at_once, updates},
};

pub(crate) const REGISTER: &str = "/waypost.v1.Registry/Register";
pub(crate) const HEARTBEAT: &str = "/waypost.v1.Registry/Heartbeat";
pub(crate) const KEEP_ALIVE: &str = "/waypost.v1.Registry/KeepAlive";
pub(crate) const UPDATE: &str = "/waypost.v1.Registry/Update";
pub(crate) const DEREGISTER: &str = "/waypost.v1.Registry/Deregister";
pub(crate) const RESOLVE: &str = "/waypost.v1.Discovery/Resolve";
pub(crate) const LIST_SERVICES: &str = "/waypost.v1.Discovery/ListServices";
pub(crate) const WATCH: &str = "/waypost.v1.Discovery/Watch";
pub(crate) const RELEASE_PROTECTION: &str = "/waypost.v1.Admin/ReleaseProtection";

/// The mark in every metadata value of a refused request, which no refusal may contain.
pub(crate) const SECRET: &str = "hunter2";
pub(crate) const MESSAGE_MAX: usize = 4 * 1024 * 1024;

/// A kind of bad input.
pub(crate) struct Case {
    pub(crate) what: String,
    pub(crate) path: &'static str,
    pub(crate) body: Bytes,
    pub(crate) refusal: Refusal,
}

/// The expected refusal.
pub(crate) enum Refusal {
    /// `INVALID_ARGUMENT`, and `BadRequest` names exactly these fields.
    Malformed(Vec<String>),
    /// `RESOURCE_EXHAUSTED`, and `QuotaFailure` and `BadRequest` name this.
    TooMuch(&'static str),
    /// `RESOURCE_EXHAUSTED`, with the reason in `QuotaFailure`.
    TooLarge,
    /// A refusal with this code.
    Code(Code),
}

#[derive(Default)]
pub(crate) struct Table(Vec<Case>);

impl Table {
    pub(crate) fn add(
        &mut self,
        what: &str,
        path: &'static str,
        request: &impl Message,
        refusal: Refusal,
    ) {
        self.raw(what, path, framed(&request.encode_to_vec()), refusal);
    }

    pub(crate) fn raw(&mut self, what: &str, path: &'static str, body: Bytes, refusal: Refusal) {
        let what = format!("{path}: {what}");
        self.0.push(Case { what, path, body, refusal });
    }

    pub(crate) fn register(&mut self, what: &str, request: &RegisterRequest, refusal: Refusal) {
        self.add(what, REGISTER, request, refusal);
    }

    /// Registrations of instances that are fine but for one field.
    pub(crate) fn instances(
        &mut self,
        what: &str,
        field: &str,
        change: impl FnOnce(&mut Instance),
    ) {
        let path = format!("instance.{field}");
        self.register(&format!("{field} {what}"), &registering(change), malformed(&[&path]));
    }

    pub(crate) fn too_much(
        &mut self,
        what: &str,
        field: &'static str,
        change: impl FnOnce(&mut Instance),
    ) {
        self.register(&format!("{field} {what}"), &registering(change), Refusal::TooMuch(field));
    }

    pub(crate) fn terms(
        &mut self,
        what: &str,
        field: &str,
        ttl: Option<Duration>,
        disconnect_grace: Option<Duration>,
    ) {
        let request = RegisterRequest { ttl, disconnect_grace, ..registering(|_| {}) };
        self.register(&format!("{field} {what}"), &request, malformed(&[field]));
    }
}

pub(crate) fn malformed(fields: &[&str]) -> Refusal {
    Refusal::Malformed(fields.iter().map(|&field| field.to_owned()).collect())
}

pub(crate) fn registering(change: impl FnOnce(&mut Instance)) -> RegisterRequest {
    let mut refused = instance("refused", "refused");
    refused.metadata.insert("token".to_owned(), SECRET.to_owned());
    change(&mut refused);
    register_request(refused)
}

pub(crate) fn seconds(seconds: i64, nanos: i32) -> Option<Duration> {
    Some(Duration { seconds, nanos })
}

pub(crate) fn entries(count: usize, value: &str) -> BTreeMap<String, String> {
    (0..count).map(|entry| (format!("key-{entry:02}"), value.to_owned())).collect()
}

/// Metadata of exactly `bytes` bytes, each part within its limit.
pub(crate) fn metadata_of(bytes: usize) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::new();
    let mut rest = bytes;
    while rest > 0 {
        let key = format!("key-{:02}", metadata.len());
        let value = (rest - key.len()).min(4000);
        rest -= key.len() + value;
        metadata.insert(key, SECRET.repeat(value / SECRET.len() + 1)[..value].to_owned());
    }
    metadata
}

pub(crate) fn update(lease_id: u64, paths: &[&str], instance: Option<Instance>) -> UpdateRequest {
    let paths = paths.iter().map(|&path| path.to_owned()).collect();
    let update_mask = Some(prost_types::FieldMask { paths });
    UpdateRequest { lease_id, instance, update_mask, ..UpdateRequest::default() }
}

pub(crate) fn bytes(table: &mut Table) {
    let register = registering(|_| {}).encode_to_vec();
    for (what, message, field) in [
        ("garbage", vec![0xff; 64], "message"),
        ("a field of number 0", vec![0x02, 0x00], "message"),
        ("the end of a group", vec![0x7c], "message"),
        ("an endless number", vec![0x80; 11], "message"),
        ("a length beyond the end", vec![0x0a, 0x7f, 0x00], "instance"),
        ("half a message", register[..register.len() / 2].to_vec(), "instance"),
        ("a number for the instance", vec![0x08, 0x01], "instance"),
        ("a host that is not UTF-8", vec![0x0a, 0x03, 0x22, 0x01, 0xff], "instance.host"),
        ("a surrogate", vec![0x0a, 0x05, 0x12, 0x03, 0xed, 0xa0, 0xbd], "instance.service"),
        ("a text for the port", vec![0x0a, 0x03, 0x2a, 0x01, b'8'], "instance.port"),
        ("a number for the metadata", vec![0x0a, 0x02, 0x58, 0x01], "instance.metadata"),
        ("a text for the TTL's seconds", vec![0x12, 0x03, 0x0a, 0x01, b'1'], "ttl.seconds"),
    ] {
        table.raw(what, REGISTER, framed(&message), malformed(&[field]));
    }
    for (what, path, message, field) in [
        ("leases of 7 bytes", HEARTBEAT, vec![0x0a, 0x07, 1, 2, 3, 4, 5, 6, 7], "lease_ids"),
        ("a number for the leases", HEARTBEAT, vec![0x08, 0x01], "lease_ids"),
        ("garbage", KEEP_ALIVE, vec![0xff; 16], "message"),
        ("garbage", WATCH, vec![0xff; 16], "message"),
        ("garbage", RESOLVE, vec![0xff; 16], "message"),
        ("garbage", UPDATE, vec![0xff; 16], "message"),
        ("garbage", DEREGISTER, vec![0xff; 16], "message"),
    ] {
        table.raw(what, path, framed(&message), malformed(&[field]));
    }
    // Groups within groups within an unknown field.
    table.raw("deep nesting", REGISTER, framed(&[0x7b; 10_000]), malformed(&["message"]));
}

/// The message with an unknown field that pads it to `bytes` bytes.
pub(crate) fn padded(message: &[u8], bytes: usize) -> Vec<u8> {
    // Field 1000, its length in four bytes.
    let mut length = bytes - message.len() - 6;
    let mut padded = message.to_vec();
    padded.extend([0xc2, 0x3e]);
    for byte in 0..4 {
        let more = if byte < 3 { 0x80 } else { 0 };
        padded.push(u8::try_from(length & 0x7f).expect("seven bits") | more);
        length >>= 7;
    }
    padded.resize(bytes, b'x');
    padded
}

pub(crate) fn table(lease: u64) -> Vec<Case> {
    let mut table = Table::default();
    names(&mut table);
    hosts(&mut table);
    ports_and_statuses(&mut table);
    metadata(&mut table);
    terms(&mut table);
    several_at_once(&mut table);
    updates(&mut table, lease);
    removals(&mut table);
    reads(&mut table);
    heartbeats(&mut table);
    bytes(&mut table);
    sizes_and_frames(&mut table);
    table.0
}
