//! Messages. Requests become the model's types, or a status with all invalid fields. Results become
//! bytes, most of which are encoded once and shared.

mod chunk;
mod codec;
mod convert;
mod instance;
mod parser;
mod resolve;
mod violations;
mod watch;
mod write;

pub(super) use chunk::StatusSelection;
pub(crate) use codec::Codec;
pub(super) use convert::{cursor_from_wire, cursor_to_wire, duration_to_wire, time_to_wire};
pub(super) use instance::instance_bytes;
pub(super) use parser::RequestParser;
pub(crate) use resolve::ResolveResponse;
pub(super) use resolve::{RESPONSE_BYTES_MAX, ResponseTooLarge};
pub(super) use violations::unavailable;
pub(crate) use watch::WatchResponse;
pub(crate) use write::{RegisterResponse, UpdateResponse};
