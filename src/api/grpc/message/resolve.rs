//! The response of `Resolve`. Its instances are encoded once for all lookups between two changes.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{self, DecodeContext, WireType, decode_varint},
};

use super::{
    chunk::{StatusSelection, encode_chunk, is_wanted, total_len},
    convert::cursor_to_wire,
};
use crate::{
    api::grpc::proto,
    model::{Cursor, Filter, Instance, Page, page_token_after},
    registry::{RosterChunk, Service},
};

/// The most bytes of instances in a page with more than one instance.
const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// The most bytes of a response. gRPC clients refuse larger messages by default.
pub(in crate::api::grpc) const RESPONSE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A `waypost.v1.ResolveResponse` with encoded instances.
#[derive(Debug, Default)]
pub(crate) struct ResolveResponse {
    /// The encoded fields `instances`.
    instances: Vec<Bytes>,
    cursor: proto::Cursor,
    /// Empty if there is no further page.
    next_page_token: String,
}

/// The instances exceed [`RESPONSE_BYTES_MAX`].
#[derive(Debug, PartialEq, Eq)]
pub(in crate::api::grpc) struct ResponseTooLarge;

impl ResolveResponse {
    /// Makes a response with all selected instances of the service that match the filter.
    pub(in crate::api::grpc) fn whole(
        service: Option<&Service>,
        filter: &Filter,
        selection: StatusSelection,
        cursor: Cursor,
    ) -> Result<Self, ResponseTooLarge> {
        let chunks = service.map(|service| service.roster.chunks()).unwrap_or_default();
        let mut response = Self { cursor: cursor_to_wire(cursor), ..Self::default() };
        let mut bytes = response.encoded_len();
        response.instances.reserve_exact(chunks.len());
        for chunk in chunks {
            let instances = encode_chunk(chunk, filter, selection);
            bytes += instances.len();
            if bytes > RESPONSE_BYTES_MAX {
                return Err(ResponseTooLarge);
            }
            response.instances.push(instances);
        }
        Ok(response)
    }

    /// Makes a response with a page of them.
    pub(in crate::api::grpc) fn page(
        service: Option<&Service>,
        filter: &Filter,
        selection: StatusSelection,
        cursor: Cursor,
        page: &Page,
    ) -> Self {
        let mut response = Self { cursor: cursor_to_wire(cursor), ..Self::default() };
        let Some(Service { key, roster, .. }) = service else { return response };
        let chunks = match &page.after {
            Some(after) => roster.chunks_from(after),
            None => roster.chunks(),
        };
        let mut builder = PageBuilder { page, count: 0, bytes: 0, last: None };
        for chunk in chunks {
            let (piece, is_full) = builder.take(chunk, filter, selection);
            response.instances.push(piece);
            if is_full {
                response.next_page_token =
                    builder.last.map(|last| page_token_after(&last.id, key)).unwrap_or_default();
                break;
            }
        }
        response
    }
}

/// A page that is being filled.
struct PageBuilder<'a> {
    page: &'a Page,
    count: usize,
    bytes: usize,
    last: Option<&'a Instance>,
}

impl<'a> PageBuilder<'a> {
    /// Takes as much of the chunk's encoded instances as the page has room for. Returns whether an
    /// instance is left for the next page.
    fn take(
        &mut self,
        chunk: &'a Arc<RosterChunk>,
        filter: &Filter,
        selection: StatusSelection,
    ) -> (Bytes, bool) {
        let encoded = encode_chunk(chunk, filter, selection);
        let (mut begin, mut end, mut is_full) = (0, 0, false);
        for instance in chunk.instances().filter(|one| is_wanted(one, filter, selection)) {
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

/// Returns the length of the first encoded item.
fn first_item_len(items: &[u8]) -> usize {
    let mut rest = items.get(1..).unwrap_or_default();
    // Never fails: it was encoded here.
    let bytes = decode_varint(&mut rest).ok().and_then(|bytes| usize::try_from(bytes).ok());
    bytes.map_or(items.len(), |bytes| (items.len() - rest.len() + bytes).min(items.len()))
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
        total_len(&self.instances) + encoding::message::encoded_len(2, &self.cursor) + token
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
