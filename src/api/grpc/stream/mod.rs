//! Bodies of streams: their end, a bounded send buffer, and the body of a watch.

mod end;
mod send_buffer;
mod watch_body;

pub(super) use end::StreamEnd;
pub(super) use watch_body::OpenedWatch;
