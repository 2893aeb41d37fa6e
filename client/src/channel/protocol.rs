//! The differences between gRPC and plain HTTP: the timeout of a call, and the number of the
//! attempt.

use std::time::Duration;

use http::{HeaderMap, HeaderName, request::Parts};

use super::timeout::{self, CallTimeout, Timeout};

static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
static GRPC_PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");
static TIMEOUT_MS: HeaderName = HeaderName::from_static("x-waypost-timeout-ms");
static PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("x-waypost-previous-attempts");

/// The protocol of a channel's calls: [`Grpc`] or [`Http`].
pub trait Protocol: Sealed {}

/// Calls of generated tonic clients; all calls to an instance share a connection.
#[derive(Clone, Copy, Debug)]
pub struct Grpc;

/// Calls of plain HTTP.
#[derive(Clone, Copy, Debug)]
pub struct Http;

/// The crate's own part of a protocol.
pub trait Sealed: Send + Sync + 'static {
    /// Takes the timeout from a request, and removes what only this crate understands.
    fn timeout(head: &mut Parts) -> Option<Timeout>;

    /// Sets the headers for the remaining time, and for the number of previous attempts.
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
