//! Error responses of the registry: which are worth a retry, and what the others mean. Never
//! contains parts of the request.

use std::{fmt, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// An invalid field of a request. Displays as `field: description`.
///
/// ```no_run
/// # fn example(refusal: waypost_client::Refusal) {
/// for violation in &refusal.violations {
///     eprintln!("{} {}", violation.field, violation.description);
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldViolation {
    /// The path of the field, for example `instance.port`; empty if the error is not about a field.
    pub field: String,
    /// The reason.
    pub description: String,
}

/// A response of the registry that a retry can't change. Displays as one line: the message and the
/// invalid fields, without repetition.
///
/// ```no_run
/// # async fn example(client: waypost_client::Client) {
/// use waypost_client::{RegisterError, Registration};
///
/// let registered = client.register(Registration::new("orders", "10.0.0.7", 0)).await;
/// if let Err(RegisterError::Invalid(refusal)) = registered {
///     eprintln!("refused: {refusal}");
///     assert_eq!(refusal.violations[0].field, "instance.port");
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// The gRPC status code.
    pub code: Code,
    /// The registry's message.
    pub message: String,
    /// The invalid fields, if the registry named them.
    pub violations: Vec<FieldViolation>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let violations: Vec<String> = self.violations.iter().map(ToString::to_string).collect();
        // The message may repeat the first violation.
        let repeats = violations.first().is_some_and(|first| self.message.starts_with(first));
        let message = (!repeats && !self.message.is_empty()).then_some(&self.message);
        let parts: Vec<&str> = message.into_iter().chain(&violations).map(String::as_str).collect();
        if parts.is_empty() {
            self.code.fmt(formatter)
        } else {
            formatter.write_str(&parts.join("; "))
        }
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for FieldViolation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(formatter, "{}: ", self.field)?;
        }
        formatter.write_str(&self.description)
    }
}

/// The message of a status, or the meaning of its code if it has none.
pub(crate) fn message(status: &Status) -> &str {
    match status.message() {
        "" => status.code().description(),
        message => message,
    }
}

/// The retryability of a failed request.
#[derive(Clone, Debug)]
pub(crate) enum Retryability {
    /// A retry may succeed, here or elsewhere; not before `after`, if it is set.
    Retry { after: Option<Duration> },
    /// The registry does not accept the credentials. A retry succeeds once they are renewed, or the
    /// registry knows them.
    Denied(Refusal),
    /// A retry can't succeed.
    Fatal(Refusal),
}

impl Retryability {
    pub(crate) fn of(status: &Status) -> Self {
        match status.code() {
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Aborted
            | Code::Unknown
            | Code::Internal => Self::Retry { after: retry_info(status) },
            // Over a limit that the caller is below again after a while.
            Code::ResourceExhausted if retry_info(status).is_some() => {
                Self::Retry { after: retry_info(status) }
            }
            Code::Unauthenticated => Self::Denied(Refusal::of(status)),
            _ => Self::Fatal(Refusal::of(status)),
        }
    }

    pub(crate) fn is_retryable(&self) -> bool {
        matches!(self, Self::Retry { .. })
    }
}

/// Returns the delay that the registry names.
fn retry_info(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|retry| retry.retry_delay)
}

impl Refusal {
    fn of(status: &Status) -> Self {
        let fields = status.get_details_bad_request().map(|request| request.field_violations);
        let violations = fields
            .unwrap_or_default()
            .into_iter()
            .map(|violation| FieldViolation {
                field: violation.field,
                description: violation.description,
            })
            .collect();
        Self { code: status.code(), message: status.message().to_owned(), violations }
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn invalid_fields_are_named() {
        let details = ErrorDetails::with_bad_request_violation("instance.port", "must not be 0");
        let status = Status::with_error_details(Code::InvalidArgument, "1 bad field", details);
        let Retryability::Fatal(refusal) = Retryability::of(&status) else { unreachable!() };
        assert_eq!(refusal.violations[0].field, "instance.port");
        assert_eq!(refusal.to_string(), "1 bad field; instance.port: must not be 0");
    }

    fn shown(message: &str, violations: &[(&str, &str)]) -> String {
        let mut details = ErrorDetails::new();
        for (field, description) in violations {
            details.add_bad_request_violation(*field, *description);
        }
        let status = Status::with_error_details(Code::InvalidArgument, message, details);
        let Retryability::Fatal(refusal) = Retryability::of(&status) else { unreachable!() };
        refusal.to_string()
    }

    #[test]
    fn a_refusal_displays_everything_once() {
        let port = ("instance.port", "is 0");
        assert_eq!(shown("instance.port: is 0", &[port]), "instance.port: is 0");
        assert_eq!(
            shown("instance.port: is 0 (and 1 more)", &[port, ("ttl", "is too long")]),
            "instance.port: is 0; ttl: is too long"
        );
        assert_eq!(shown("bad", &[port, ("", "3 more")]), "bad; instance.port: is 0; 3 more");
        assert_eq!(shown("no such lease", &[]), "no such lease");
        assert_eq!(shown("", &[port]), "instance.port: is 0");
    }

    #[test]
    fn a_refusal_without_message_displays_its_code() {
        let meaning = Code::InvalidArgument.description();
        assert_eq!(shown("", &[]), meaning);
        assert_eq!(message(&Status::invalid_argument("")), meaning);
        assert_eq!(message(&Status::invalid_argument("no")), "no");
    }

    #[test]
    fn a_retry_delay_is_parsed() {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(2)));
        let status = Status::with_error_details(Code::Unavailable, "draining", details);
        let verdict = Retryability::of(&status);
        assert!(
            matches!(verdict, Retryability::Retry { after: Some(after) } if after.as_secs() == 2)
        );
    }

    #[test]
    fn invalid_details_are_ignored() {
        let garbage = bytes::Bytes::from_static(b"\xff\xff\xff");
        let status = Status::with_details(Code::InvalidArgument, "no", garbage.clone());
        let Retryability::Fatal(refusal) = Retryability::of(&status) else { unreachable!() };
        assert!(refusal.violations.is_empty());
        let status = Status::with_details(Code::Unavailable, "no", garbage);
        assert!(matches!(Retryability::of(&status), Retryability::Retry { after: None }));
    }

    #[test]
    fn refused_credentials_are_no_refusal_for_ever() {
        let denied = Retryability::of(&Status::unauthenticated("no"));
        assert!(matches!(denied, Retryability::Denied(refusal) if refusal.message == "no"));
    }

    #[test]
    fn limit_with_a_delay_is_no_refusal_for_ever() {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(2)));
        let status = Status::with_error_details(Code::ResourceExhausted, "slower", details);
        let retryability = Retryability::of(&status);
        assert!(matches!(retryability, Retryability::Retry { after: Some(after) }
            if after.as_secs() == 2));
    }

    #[test]
    fn limits_and_permissions_are_refusals() {
        for code in [Code::ResourceExhausted, Code::PermissionDenied, Code::Unimplemented] {
            assert!(matches!(Retryability::of(&Status::new(code, "no")), Retryability::Fatal(_)));
        }
    }
}
