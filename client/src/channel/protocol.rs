//! What gRPC and plain HTTP say differently about a call: its time, and which attempt it is.

use std::time::Duration;

use http::{HeaderMap, HeaderName, request::Parts};

use super::timeout::{self, CallTimeout, Timeout};

static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
static GRPC_PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");
static TIMEOUT_MS: HeaderName = HeaderName::from_static("x-waypost-timeout-ms");
static PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("x-waypost-previous-attempts");

/// What the calls of a channel speak: [`Grpc`] or [`Http`].
pub trait Protocol: Sealed {}

/// Calls of clients that tonic generates, each over a connection that all calls to an instance share.
#[derive(Clone, Copy, Debug)]
pub struct Grpc;

/// Calls of plain HTTP.
#[derive(Clone, Copy, Debug)]
pub struct Http;

/// What this crate knows of a protocol.
pub trait Sealed: Send + Sync + 'static {
    /// How long the caller waits for an answer, where a request says so. What only this crate understands
    /// is taken off it.
    fn timeout(head: &mut Parts) -> Option<Timeout>;

    /// Tells the instance how much time is `left`, and how many attempts there were before.
    fn set_headers(headers: &mut HeaderMap, left: Option<Duration>, previous: u32);
}

impl Protocol for Grpc {}

impl Sealed for Grpc {
    fn timeout(head: &mut Parts) -> Option<Timeout> {
        let asked = timeout::parse(&head.headers);
        let shorter = asked.into_iter().chain(CallTimeout::take(&mut head.extensions)).min();
        shorter.map(Timeout::WholeCall)
    }

    fn set_headers(headers: &mut HeaderMap, left: Option<Duration>, previous: u32) {
        if let Some(left) = left {
            headers.insert(&GRPC_TIMEOUT, timeout::format(left));
        }
        if previous > 0 {
            headers.insert(&GRPC_PREVIOUS_ATTEMPTS, previous.into());
        }
    }
}

impl Protocol for Http {}

impl Sealed for Http {
    fn timeout(head: &mut Parts) -> Option<Timeout> {
        CallTimeout::take(&mut head.extensions).map(Timeout::Instance)
    }

    fn set_headers(headers: &mut HeaderMap, left: Option<Duration>, previous: u32) {
        if let Some(left) = left {
            let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            headers.insert(&TIMEOUT_MS, millis.max(1).into());
        }
        if previous > 0 {
            headers.insert(&PREVIOUS_ATTEMPTS, previous.into());
        }
    }
}
