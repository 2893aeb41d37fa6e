//! The engine's errors as statuses: the one place that maps them.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::{page::ANSWER_BYTES_MAX, violations::unavailable};
use crate::{engine::EngineError, registry::Refusal, store::StoreError};

/// When to come again to a server that is starting.
const START_RETRY: Duration = Duration::from_millis(100);
/// When to come again to a server that is overloaded.
const OVERLOAD_RETRY: Duration = Duration::from_millis(200);
/// When to come again to a server whose store fails, or that is leaving.
const OUTAGE_RETRY: Duration = Duration::from_secs(1);

/// The status for what the engine says.
pub(super) fn status(error: EngineError) -> Status {
    let message = error.to_string();
    match error {
        EngineError::Refused(refusal) => refused(&refusal, message),
        EngineError::Overloaded(_) => unavailable(message, OVERLOAD_RETRY),
        EngineError::Store(StoreError::Full(_)) => {
            let mut details = ErrorDetails::with_quota_failure_violation("disk", message.clone());
            details.set_retry_info(Some(OUTAGE_RETRY));
            Status::with_error_details(Code::ResourceExhausted, message, details)
        }
        EngineError::Store(StoreError::NoImage(_)) => Status::failed_precondition(message),
        EngineError::Store(_) | EngineError::Stopped => unavailable(message, OUTAGE_RETRY),
    }
}

fn refused(refusal: &Refusal, message: String) -> Status {
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
        Refusal::Full { .. } => {
            let details = ErrorDetails::with_quota_failure_violation("instances", message.clone());
            Status::with_error_details(Code::ResourceExhausted, message, details)
        }
    }
}

/// The status for a server that has not loaded what it kept.
pub(super) fn starting() -> Status {
    unavailable("the server is starting", START_RETRY)
}

/// The status for a server that is leaving.
pub(super) fn draining() -> Status {
    unavailable("the server is shutting down", OUTAGE_RETRY)
}

/// The status for a message that is larger than what is taken.
pub(super) fn message_too_large(message: &str) -> Status {
    let details = ErrorDetails::with_quota_failure_violation("message", message);
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// The status for a lookup whose instances don't fit into one answer.
pub(super) fn answer_too_large() -> Status {
    let max = ANSWER_BYTES_MAX / 1024 / 1024;
    let message = format!(
        "the matching instances take more than {max} MiB, the most of one answer: ask for pages \
         (page_size, then page_token), or follow the service with Watch, which sends it in parts"
    );
    message_too_large(&message)
}

/// An answer of the engine to another question.
pub(super) fn mismatch() -> Status {
    Status::internal("the engine gave an answer to another question")
}
