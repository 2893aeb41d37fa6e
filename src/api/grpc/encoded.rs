//! Answers whose larger part was encoded before and is shared: by lookups of a service that did not
//! change, and by all watches that tell of the same change.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{self, DecodeContext, WireType, decode_varint},
};

use super::{
    convert::{cursor_to_wire, instance_bytes, put_instance},
    proto,
};
use crate::{
    engine::{WatchEvent, WatchedChange},
    model::{ChangeKind, Cursor, Filter, Instance, Page, RemovalReason, page_token_after},
    protobuf::{Fields, bytes_len, number_len},
    registry::{LogEntry, RosterChunk, Service},
};

/// Bytes of instances in a page at most, where it has more than one instance.
const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one response at most: gRPC clients refuse larger messages by default.
pub(super) const RESPONSE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The field of instances in `ResolveResponse` and `Snapshot`, and of changes in `Changes`.
const ITEMS: u32 = 1;

/// A `waypost.v1.RegisterResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RegisterResponse {
    /// The bytes of a `waypost.v1.Instance`.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) instance: Vec<u8>,
    #[prost(fixed64, tag = "2")]
    pub(super) lease_id: u64,
    #[prost(message, optional, tag = "3")]
    pub(super) ttl: Option<prost_types::Duration>,
    #[prost(message, optional, tag = "4")]
    pub(super) heartbeat_interval: Option<prost_types::Duration>,
    #[prost(message, optional, tag = "5")]
    pub(super) cursor: Option<proto::Cursor>,
}

/// A `waypost.v1.UpdateResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct UpdateResponse {
    /// The bytes of a `waypost.v1.Instance`.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) instance: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    pub(super) cursor: Option<proto::Cursor>,
}

/// A `waypost.v1.ResolveResponse`: what to send, as bytes.
#[derive(Debug, Default)]
pub(crate) struct ResolveResponse {
    /// Encoded fields `instances`.
    instances: Vec<Bytes>,
    cursor: proto::Cursor,
    /// Empty where this is everything, or the last page.
    next_page_token: String,
}

/// The instances take more than [`RESPONSE_BYTES_MAX`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// A `waypost.v1.WatchResponse`: what to send, as bytes.
#[derive(Debug, Default)]
pub(crate) struct WatchResponse {
    cursor: proto::Cursor,
    /// The field of the event.
    event: u32,
    /// Encoded fields of the event.
    items: Vec<Bytes>,
}

impl ResolveResponse {
    /// All instances of the service that match the filter, only those that take traffic or all.
    pub(super) fn whole(
        service: Option<&Service>,
        filter: &Filter,
        which: Which,
        cursor: Cursor,
    ) -> Result<Self, TooLarge> {
        let chunks = service.map(|service| service.roster.chunks()).unwrap_or_default();
        let mut answer = Self { cursor: cursor_to_wire(cursor), ..Self::default() };
        let mut bytes = answer.encoded_len();
        answer.instances.reserve_exact(chunks.len());
        for chunk in chunks {
            let instances = encode_chunk(chunk, filter, which);
            bytes += instances.len();
            if bytes > RESPONSE_BYTES_MAX {
                return Err(TooLarge);
            }
            answer.instances.push(instances);
        }
        Ok(answer)
    }

    /// A page of them.
    pub(super) fn page(
        service: Option<&Service>,
        filter: &Filter,
        which: Which,
        cursor: Cursor,
        page: &Page,
    ) -> Self {
        let mut answer = Self { cursor: cursor_to_wire(cursor), ..Self::default() };
        let Some(Service { key, roster, .. }) = service else { return answer };
        let chunks = match &page.after {
            Some(after) => roster.chunks_from(after),
            None => roster.chunks(),
        };
        let mut filling = Filling { page, count: 0, bytes: 0, last: None };
        for chunk in chunks {
            let (piece, is_full) = filling.take(chunk, filter, which);
            answer.instances.push(piece);
            if is_full {
                answer.next_page_token =
                    filling.last.map(|last| page_token_after(&last.id, key)).unwrap_or_default();
                break;
            }
        }
        answer
    }
}

/// A page on the way.
struct Filling<'a> {
    page: &'a Page,
    count: usize,
    bytes: usize,
    last: Option<&'a Instance>,
}

impl<'a> Filling<'a> {
    /// Takes as much of the chunk's encoded instances as the page has room for. Returns whether an
    /// instance is left for the next page.
    fn take(
        &mut self,
        chunk: &'a Arc<RosterChunk>,
        filter: &Filter,
        which: Which,
    ) -> (Bytes, bool) {
        let encoded = encode_chunk(chunk, filter, which);
        let (mut begin, mut end, mut is_full) = (0, 0, false);
        for instance in chunk.instances().filter(|one| is_wanted(one, filter, which)) {
            let len = first_item_len(&encoded[end..]);
            if self.page.after.as_ref().is_some_and(|after| instance.id <= *after) {
                end += len;
                begin = end;
                continue;
            }
            let is_fit = self.count == 0 || self.bytes + len <= PAGE_BYTES_MAX;
            if self.count == self.page.size || !is_fit {
                is_full = true;
                break;
            }
            self.count += 1;
            self.bytes += len;
            self.last = Some(instance);
            end += len;
        }
        (encoded.slice(begin..end), is_full)
    }
}

/// Returns how long the first of the encoded items is.
fn first_item_len(items: &[u8]) -> usize {
    let mut rest = items.get(1..).unwrap_or_default();
    // Encoded here, so it can be decoded.
    let bytes = decode_varint(&mut rest).ok().and_then(|bytes| usize::try_from(bytes).ok());
    bytes.map_or(items.len(), |bytes| (items.len() - rest.len() + bytes).min(items.len()))
}

/// Which instances are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// Those that take traffic.
    Serving,
    /// All.
    All,
}

impl WatchResponse {
    const CURSOR: u32 = 1;
    const SNAPSHOT: u32 = 2;
    const CHANGES: u32 = 3;
    const IDLE: u32 = 4;
    /// The encoded field `last` of a `Snapshot`: field 2, a varint, true.
    const LAST: &'static [u8] = &[2 << 3, 1];

    pub(super) fn new(event: &WatchEvent, filter: &Filter, cursor: Cursor) -> Self {
        let (event, items) = match event {
            WatchEvent::Snapshot { chunks, last } => {
                let chunk = |chunk| encode_chunk(chunk, filter, Which::All);
                let last = last.then_some(Bytes::from_static(Self::LAST));
                (Self::SNAPSHOT, chunks.iter().map(chunk).chain(last).collect())
            }
            WatchEvent::Changes(changes) => {
                (Self::CHANGES, changes.iter().map(encode_change).collect())
            }
            WatchEvent::Idle => (Self::IDLE, Vec::new()),
        };
        Self { cursor: cursor_to_wire(cursor), event, items }
    }
}

fn encode_chunk(chunk: &Arc<RosterChunk>, filter: &Filter, which: Which) -> Bytes {
    if !filter.is_empty() {
        let wanted = chunk.instances().filter(|instance| is_wanted(instance, filter, which));
        return encode_instances(wanted);
    }
    let all = || chunk.all_encoded.bytes_or_encode(|| encode_instances(chunk.instances())).clone();
    let serving = || {
        if chunk.all_serve() {
            return all();
        }
        encode_instances(chunk.instances().filter(|instance| instance.serves()))
    };
    match which {
        Which::All => all(),
        Which::Serving => chunk.serving_encoded.bytes_or_encode(serving).clone(),
    }
}

fn is_wanted(instance: &Instance, filter: &Filter, which: Which) -> bool {
    (which == Which::All || instance.serves()) && filter.matches(&instance.content)
}

fn encode_instances<'a>(instances: impl Iterator<Item = &'a Arc<Instance>>) -> Bytes {
    let (mut buffer, mut bytes) = (Vec::new(), Vec::new());
    for instance in instances {
        bytes.clear();
        put_instance(instance, &mut bytes);
        Fields(&mut buffer).bytes(ITEMS, &bytes);
    }
    exactly(buffer)
}

fn encode_change(change: &WatchedChange) -> Bytes {
    match change {
        WatchedChange::Whole(entry) => {
            entry.encoded.bytes_or_encode(|| encode_entry(entry, None)).clone()
        }
        WatchedChange::Entered(entry) => encode_entry(entry, Some(proto::ChangeKind::Added)),
        WatchedChange::Left(entry) => encode_entry(entry, Some(proto::ChangeKind::Removed)),
    }
}

/// The change, as what it was or, where a filter makes something else of it, as that, without a
/// reason.
fn encode_entry(entry: &LogEntry, filtered: Option<proto::ChangeKind>) -> Bytes {
    let change = &entry.change;
    let (kind, reason) = match &change.kind {
        ChangeKind::Added => (proto::ChangeKind::Added, proto::ChangeReason::Unspecified),
        ChangeKind::Updated { replaced: true, .. } => {
            (proto::ChangeKind::Updated, proto::ChangeReason::Replaced)
        }
        ChangeKind::Updated { replaced: false, .. } => {
            (proto::ChangeKind::Updated, proto::ChangeReason::Unspecified)
        }
        ChangeKind::Removed(reason) => (proto::ChangeKind::Removed, reason_to_wire(*reason)),
    };
    let (kind, reason) =
        filtered.map_or((kind, reason), |kind| (kind, proto::ChangeReason::Unspecified));
    let (kind, reason, revision) = (kind as u64, reason as u64, change.revision().0);
    let instance = instance_bytes(&change.instance);
    let numbers = number_len(kind) + number_len(reason) + number_len(revision);
    let bytes = numbers + bytes_len(instance.len());
    let mut buffer = Vec::with_capacity(bytes_len(bytes));
    let mut fields = Fields(&mut buffer);
    fields.begin(ITEMS, bytes);
    fields.number(1, kind);
    fields.bytes(2, &instance);
    fields.number(3, reason);
    fields.number(4, revision);
    exactly(buffer)
}

/// What is kept is exactly as large as what it holds.
fn exactly(buffer: Vec<u8>) -> Bytes {
    buffer.into_boxed_slice().into()
}

fn reason_to_wire(reason: RemovalReason) -> proto::ChangeReason {
    match reason {
        RemovalReason::Deregistered => proto::ChangeReason::Deregistered,
        RemovalReason::Expired => proto::ChangeReason::Expired,
        RemovalReason::Disconnected => proto::ChangeReason::Disconnected,
        RemovalReason::Evicted => proto::ChangeReason::Evicted,
    }
}

fn length(items: &[Bytes]) -> usize {
    items.iter().map(Bytes::len).sum()
}

impl Message for ResolveResponse {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        for instances in &self.instances {
            buffer.put_slice(instances);
        }
        encoding::message::encode(2, &self.cursor, buffer);
        if !self.next_page_token.is_empty() {
            encoding::string::encode(3, &self.next_page_token, buffer);
        }
    }

    fn encoded_len(&self) -> usize {
        let token = match self.next_page_token.as_str() {
            "" => 0,
            _ => encoding::string::encoded_len(3, &self.next_page_token),
        };
        length(&self.instances) + encoding::message::encoded_len(2, &self.cursor) + token
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        // The server never reads its own answers.
        encoding::skip_field(wire_type, tag, buffer, context)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Message for WatchResponse {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        encoding::message::encode(Self::CURSOR, &self.cursor, buffer);
        encoding::encode_key(self.event, WireType::LengthDelimited, buffer);
        encoding::encode_varint(length(&self.items) as u64, buffer);
        for item in &self.items {
            buffer.put_slice(item);
        }
    }

    fn encoded_len(&self) -> usize {
        let items = length(&self.items);
        encoding::message::encoded_len(Self::CURSOR, &self.cursor)
            + encoding::key_len(self.event)
            + encoding::encoded_len_varint(items as u64)
            + items
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        // The server never reads its own answers.
        encoding::skip_field(wire_type, tag, buffer, context)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}
