//! Accepts connections and serves the requests on them, over HTTP/1.1 and HTTP/2. In the order of a
//! connection: the accept loop, its thread, its bytes, its requests, its end.
//! Invariant: a connection that sends nothing, or too much, delays no other.

mod accept;
mod activity;
mod connection;
mod http2_frames;
mod linger;
mod rejection;
mod request_line;
mod shutdown;
mod stream;
mod threads;

pub(crate) use self::{
    accept::run, connection::Timeouts, rejection::Rejected, request_line::EncodedPositions,
    shutdown::Shutdown, threads::ServingThreads,
};
