//! Bodies of streams: the right to them, their end, a bounded send buffer, and the body of a watch.

mod access;
mod end;
mod send_buffer;
mod watch_body;

pub(super) use access::StreamAccess;
pub(super) use end::StreamEnd;
pub(super) use watch_body::OpenedWatch;
