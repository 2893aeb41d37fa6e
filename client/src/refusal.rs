//! What the registry said when it said no: which answers are worth another attempt, and what the
//! others say. It must never carry what was sent.

use std::{fmt, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// One field of a request that the registry did not take.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldViolation {
    /// The path of the field, for example `instance.port`.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

/// The registry's answer to a request that it will not carry out, however often it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// The gRPC status code.
    pub code: Code,
    /// Why, in the registry's words.
    pub message: String,
    /// The fields at fault, where the registry named them.
    pub violations: Vec<FieldViolation>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}: {}", self.code, self.message)?;
        for violation in &self.violations {
            write!(formatter, "; {}: {}", violation.field, violation.description)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

/// What an error status means for the caller.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// Asking again, here or elsewhere, may do; not before `after`, where it is given.
    Transient { after: Option<Duration> },
    /// Asking again is of no use.
    Refused(Refusal),
}

impl Verdict {
    pub(crate) fn of(status: &Status) -> Self {
        match status.code() {
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Aborted
            | Code::Unknown
            | Code::Internal => Self::Transient {
                after: status.get_details_retry_info().and_then(|retry| retry.retry_delay),
            },
            _ => Self::Refused(Refusal::of(status)),
        }
    }
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
    fn bad_fields_are_named() {
        let details = ErrorDetails::with_bad_request_violation("instance.port", "must not be 0");
        let status = Status::with_error_details(Code::InvalidArgument, "1 bad field", details);
        let Verdict::Refused(refusal) = Verdict::of(&status) else { unreachable!() };
        assert_eq!(refusal.violations[0].field, "instance.port");
        assert_eq!(
            refusal.to_string(),
            "InvalidArgument: 1 bad field; instance.port: must not be 0"
        );
    }

    #[test]
    fn a_retry_delay_is_read() {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(2)));
        let status = Status::with_error_details(Code::Unavailable, "draining", details);
        let verdict = Verdict::of(&status);
        assert!(
            matches!(verdict, Verdict::Transient { after: Some(after) } if after.as_secs() == 2)
        );
    }

    #[test]
    fn details_that_are_no_details_are_left_out() {
        let garbage = bytes::Bytes::from_static(b"\xff\xff\xff");
        let status = Status::with_details(Code::InvalidArgument, "no", garbage.clone());
        let Verdict::Refused(refusal) = Verdict::of(&status) else { unreachable!() };
        assert!(refusal.violations.is_empty());
        let status = Status::with_details(Code::Unavailable, "no", garbage);
        assert!(matches!(Verdict::of(&status), Verdict::Transient { after: None }));
    }

    #[test]
    fn limits_and_permissions_are_refusals() {
        for code in [Code::ResourceExhausted, Code::PermissionDenied, Code::Unimplemented] {
            assert!(matches!(Verdict::of(&Status::new(code, "no")), Verdict::Refused(_)));
        }
    }
}
