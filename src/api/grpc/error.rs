//! Maps every error of the engine to its gRPC status.

use std::{collections::HashMap, fmt::Display, time::Duration};

use http::Response;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::message::{RESPONSE_BYTES_MAX, unavailable};
use crate::{
    auth::{AccessError, AccessObject},
    engine::EngineError,
    registry::Refusal,
    store::StoreError,
};

/// The domain of error details.
const DOMAIN: &str = "waypost.v1";
/// The most characters of a name in the details.
const NAME_CHARS_MAX: usize = 256;
/// The retry delay while the server starts.
const START_RETRY: Duration = Duration::from_millis(100);
/// The retry delay while the server is overloaded.
const OVERLOAD_RETRY: Duration = Duration::from_millis(200);
/// The retry delay while a namespace has no room for another instance.
const ROOM_RETRY: Duration = Duration::from_secs(10);
/// The retry delay while the store fails or the server shuts down.
const OUTAGE_RETRY: Duration = Duration::from_secs(1);

/// Maps an error of the engine.
pub(super) fn status(error: EngineError) -> Status {
    let message = error.to_string();
    match error {
        EngineError::Access(error) => refused_access(&error),
        EngineError::Refused(refusal) => refused_command(&refusal, message),
        EngineError::Overloaded(_) => unavailable(message, OVERLOAD_RETRY),
        EngineError::Store(StoreError::Full(_)) => {
            let mut details = ErrorDetails::with_quota_failure_violation("disk", message.clone());
            details.set_retry_info(Some(OUTAGE_RETRY));
            Status::with_error_details(Code::ResourceExhausted, message, details)
        }
        EngineError::Store(StoreError::NothingToBackUp(_)) => Status::failed_precondition(message),
        EngineError::Store(_) | EngineError::Stopped => unavailable(message, OUTAGE_RETRY),
    }
}

fn refused_command(refusal: &Refusal, message: String) -> Status {
    match refusal {
        Refusal::NoSuchInstance { .. } | Refusal::NoSuchLease(_) => Status::not_found(message),
        Refusal::Fenced(lease) => {
            let subject = format!("lease_id {lease}");
            let details = ErrorDetails::with_precondition_failure_violation(
                "FENCED",
                subject,
                message.clone(),
            );
            Status::with_error_details(Code::FailedPrecondition, message, details)
        }
        Refusal::NamespaceFull { namespace, .. } => {
            let subject = format!("namespace {namespace}");
            let mut details = ErrorDetails::with_quota_failure_violation(subject, message.clone());
            details.set_retry_info(Some(ROOM_RETRY));
            Status::with_error_details(Code::ResourceExhausted, message, details)
        }
        Refusal::Full { .. } => {
            let details = ErrorDetails::with_quota_failure_violation("instances", message.clone());
            Status::with_error_details(Code::ResourceExhausted, message, details)
        }
    }
}

/// The status of a caller that is refused.
pub(super) fn refused_access(error: &AccessError) -> Status {
    let mut metadata = HashMap::new();
    let mut insert = |key: &str, value: &dyn Display| {
        metadata.insert(key.to_owned(), shortened(&value.to_string()));
    };
    let code = match error {
        AccessError::Unauthenticated(_) => Code::Unauthenticated,
        AccessError::WrongAuthority => Code::PermissionDenied,
        AccessError::NotAllowed { principal, action, object } => {
            insert("principal", principal);
            insert("action", &action.0.name());
            match object {
                AccessObject::Server => {}
                AccessObject::Namespace(namespace) => insert("namespace", namespace),
                AccessObject::Service(service) => {
                    insert("namespace", &service.namespace);
                    insert("service", &service.service);
                }
            }
            Code::PermissionDenied
        }
        AccessError::HostNotAllowed { principal, service, .. } => {
            insert("principal", principal);
            insert("action", &"register");
            insert("namespace", &service.namespace);
            insert("service", &service.service);
            Code::PermissionDenied
        }
        AccessError::Limited { principal, .. } => {
            insert("principal", principal);
            Code::ResourceExhausted
        }
    };
    let mut details = ErrorDetails::with_error_info(error.reason(), DOMAIN, metadata);
    if let AccessError::Limited { principal, limit, retry } = error {
        let subject = format!("principal {}", shortened(principal.as_str()));
        details.add_quota_failure_violation(subject, limit.to_string());
        details.set_retry_info(Some(*retry));
    }
    Status::with_error_details(code, error.to_string(), details)
}

/// As [`refused_access`], for `map_err`.
#[expect(clippy::needless_pass_by_value, reason = "the argument of map_err")]
pub(super) fn refused(error: AccessError) -> Status {
    refused_access(&error)
}

/// Cuts a text that could make the details too large for the usual limits of headers.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(NAME_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Returns the name of the status of a response.
pub(super) fn code_name<B>(response: &Response<B>) -> &'static str {
    let status = response.headers().get(Status::GRPC_STATUS);
    match status.map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes())) {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The status of a method that the port does not have.
pub(super) fn no_such_method() -> Status {
    Status::unimplemented("")
}

/// The status of a call whose caller the gate did not identify: a bug.
pub(super) fn unidentified() -> Status {
    Status::internal("the caller of the request is not identified")
}

/// The status while the server loads its store.
pub(super) fn starting() -> Status {
    unavailable("the server is starting", START_RETRY)
}

/// The status while the server shuts down.
pub(super) fn draining() -> Status {
    unavailable("the server is shutting down", OUTAGE_RETRY)
}

/// Maps `OUT_OF_RANGE`, which is what tonic returns for a message over the limit, to the documented
/// status. Others stay.
pub(super) fn normalized(status: &Status) -> Status {
    if status.code() == Code::OutOfRange {
        message_too_large(status.message())
    } else {
        status.clone()
    }
}

/// The status of a message over the limit.
fn message_too_large(message: &str) -> Status {
    let details = ErrorDetails::with_quota_failure_violation("message", message);
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// The status of a lookup whose instances do not fit into one response.
pub(super) fn response_too_large() -> Status {
    let max = RESPONSE_BYTES_MAX / 1024 / 1024;
    let message = format!(
        "the matching instances take more than {max} MiB, the limit of one response: request pages \
         (page_size, then page_token), or use Watch, which sends them in parts"
    );
    message_too_large(&message)
}

/// The status of an outcome that does not match the command: a bug.
pub(super) fn mismatch() -> Status {
    Status::internal("the engine's outcome does not match the command")
}
