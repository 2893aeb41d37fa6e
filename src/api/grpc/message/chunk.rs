//! Instances as encoded bytes, which lookups and watches share.

use std::sync::Arc;

use bytes::Bytes;

use super::instance::put_instance;
use crate::{
    model::{Filter, Instance},
    protobuf::Fields,
    registry::RosterChunk,
};

/// The field of instances in `ResolveResponse` and `Snapshot`, and of changes in `Changes`.
pub(super) const ITEMS: u32 = 1;

/// The instances that a request selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api::grpc) enum StatusSelection {
    /// Instances that take traffic.
    Serving,
    /// All instances.
    All,
}

/// Encodes the selected instances of a chunk as fields [`ITEMS`]. Shared unless there is a filter.
pub(super) fn encode_chunk(
    chunk: &Arc<RosterChunk>,
    filter: &Filter,
    selection: StatusSelection,
) -> Bytes {
    if !filter.is_empty() {
        let wanted = chunk.instances().filter(|instance| is_wanted(instance, filter, selection));
        return encode_instances(wanted);
    }
    let all = || chunk.all_encoded.bytes_or_encode(|| encode_instances(chunk.instances())).clone();
    let serving = || {
        if chunk.all_serve() {
            return all();
        }
        encode_instances(chunk.instances().filter(|instance| instance.serves()))
    };
    match selection {
        StatusSelection::All => all(),
        StatusSelection::Serving => chunk.serving_encoded.bytes_or_encode(serving).clone(),
    }
}

pub(super) fn is_wanted(instance: &Instance, filter: &Filter, selection: StatusSelection) -> bool {
    (selection == StatusSelection::All || instance.serves()) && filter.matches(&instance.content)
}

fn encode_instances<'a>(instances: impl Iterator<Item = &'a Arc<Instance>>) -> Bytes {
    let (mut buffer, mut bytes) = (Vec::new(), Vec::new());
    for instance in instances {
        bytes.clear();
        put_instance(instance, &mut bytes);
        Fields(&mut buffer).bytes(ITEMS, &bytes);
    }
    into_exact(buffer)
}

/// Drops spare capacity: the bytes are kept.
pub(super) fn into_exact(buffer: Vec<u8>) -> Bytes {
    buffer.into_boxed_slice().into()
}

pub(super) fn total_len(items: &[Bytes]) -> usize {
    items.iter().map(Bytes::len).sum()
}
