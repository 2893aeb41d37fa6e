//! The messages of a watch. Changes and chunks are encoded once for all watches.

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{self, DecodeContext, WireType},
};

use super::{
    chunk::{ITEMS, StatusSelection, encode_chunk, into_exact, total_len},
    convert::cursor_to_wire,
    instance::instance_bytes,
};
use crate::{
    api::grpc::proto,
    engine::{WatchEvent, WatchedChange},
    model::{ChangeKind, Cursor, Filter, RemovalReason},
    protobuf::{Fields, bytes_len, number_len},
    registry::LogEntry,
};

/// A `waypost.v1.WatchResponse` with an encoded event.
#[derive(Debug, Default)]
pub(crate) struct WatchResponse {
    cursor: proto::Cursor,
    /// The field number of the event.
    event: u32,
    /// The encoded fields of the event.
    items: Vec<Bytes>,
}

impl WatchResponse {
    const CURSOR: u32 = 1;
    const SNAPSHOT: u32 = 2;
    const CHANGES: u32 = 3;
    const IDLE: u32 = 4;
    /// The encoded field `last` of a `Snapshot`: field 2, a varint, true.
    const LAST: &'static [u8] = &[2 << 3, 1];

    pub(in crate::api::grpc) fn new(event: &WatchEvent, filter: &Filter, cursor: Cursor) -> Self {
        let (event, items) = match event {
            WatchEvent::Snapshot { chunks, last } => {
                let chunk = |chunk| encode_chunk(chunk, filter, StatusSelection::All);
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

fn encode_change(change: &WatchedChange) -> Bytes {
    match change {
        WatchedChange::Whole(entry) => {
            entry.encoded.bytes_or_encode(|| encode_entry(entry, None)).clone()
        }
        WatchedChange::Entered(entry) => encode_entry(entry, Some(proto::ChangeKind::Added)),
        WatchedChange::Left(entry) => encode_entry(entry, Some(proto::ChangeKind::Removed)),
    }
}

/// Encodes a change. `filtered` is the kind that a filter makes of it, which has no reason.
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
    into_exact(buffer)
}

fn reason_to_wire(reason: RemovalReason) -> proto::ChangeReason {
    match reason {
        RemovalReason::Deregistered => proto::ChangeReason::Deregistered,
        RemovalReason::Expired => proto::ChangeReason::Expired,
        RemovalReason::Disconnected => proto::ChangeReason::Disconnected,
        RemovalReason::Evicted => proto::ChangeReason::Evicted,
    }
}

impl Message for WatchResponse {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        encoding::message::encode(Self::CURSOR, &self.cursor, buffer);
        encoding::encode_key(self.event, WireType::LengthDelimited, buffer);
        encoding::encode_varint(total_len(&self.items) as u64, buffer);
        for item in &self.items {
            buffer.put_slice(item);
        }
    }

    fn encoded_len(&self) -> usize {
        let items = total_len(&self.items);
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
        // The server never decodes its responses.
        encoding::skip_field(wire_type, tag, buffer, context)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}
