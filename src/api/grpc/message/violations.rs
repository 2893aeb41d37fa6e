//! All violations of a request as one status of bounded size.
//!
//! Pure.

use std::{fmt::Display, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The most bytes of paths and reasons in the details. Usual limits of headers are 8 KiB, and the
/// details are sent as base64, some of them twice.
const DETAIL_BYTES_MAX: usize = 2048;
/// The most bytes of one path or reason.
const TEXT_BYTES_MAX: usize = 200;

/// The violations of a request, each with the path of its field.
#[derive(Debug, Default)]
pub(in crate::api::grpc) struct Violations {
    found: Vec<RequestViolation>,
}

#[derive(Debug)]
struct RequestViolation {
    path: String,
    reason: String,
    over_limit: bool,
}

impl Violations {
    /// Adds an invalid field.
    pub(in crate::api::grpc) fn bad(&mut self, path: impl Into<String>, reason: impl Display) {
        self.add(path.into(), &reason, false);
    }

    /// Adds a field that exceeds a limit.
    pub(in crate::api::grpc) fn over_limit(
        &mut self,
        path: impl Into<String>,
        reason: impl Display,
    ) {
        self.add(path.into(), &reason, true);
    }

    fn add(&mut self, path: String, reason: &dyn Display, over_limit: bool) {
        self.found.push(RequestViolation { path, reason: reason.to_string(), over_limit });
    }

    /// Returns the value, or adds a violation.
    pub(in crate::api::grpc) fn check<T, E: Display>(
        &mut self,
        path: impl Into<String>,
        parsed: Result<T, E>,
    ) -> Option<T> {
        parsed.map_err(|error| self.bad(path, error)).ok()
    }

    /// Returns whether there is no violation.
    pub(in crate::api::grpc) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Makes the status: `INVALID_ARGUMENT`, or `RESOURCE_EXHAUSTED` if only limits are exceeded.
    /// `BadRequest` names every field, `QuotaFailure` also those that exceed a limit.
    pub(in crate::api::grpc) fn into_status(self) -> Status {
        let only_limits = self.found.iter().all(|violation| violation.over_limit);
        let code = if only_limits { Code::ResourceExhausted } else { Code::InvalidArgument };
        let count = self.found.len();
        let mut details = ErrorDetails::new();
        let mut message = String::new();
        let mut bytes = 0;
        for (index, RequestViolation { path, reason, over_limit }) in self.found.iter().enumerate()
        {
            let (path, reason) = (shortened(path), shortened(reason));
            bytes += path.len() + reason.len();
            if index > 0 && bytes > DETAIL_BYTES_MAX {
                let more = format!("{} more violations are not listed", count - index);
                details.add_bad_request_violation("", more);
                break;
            }
            if index == 0 {
                message = format!("{path}: {reason}");
            }
            if *over_limit {
                details.add_quota_failure_violation(path.clone(), reason.clone());
            }
            details.add_bad_request_violation(path, reason);
        }
        if count > 1 {
            message = format!("{message} (and {} more)", count - 1);
        }
        Status::with_error_details(code, message, details)
    }
}

/// Replaces control characters and bounds the length.
fn shortened(text: &str) -> String {
    let mut short: String = text
        .chars()
        .map(|character| if character.is_control() { '\u{fffd}' } else { character })
        .collect();
    if short.len() > TEXT_BYTES_MAX {
        short.truncate(short.floor_char_boundary(TEXT_BYTES_MAX));
        short.push('…');
    }
    short
}

/// Makes `UNAVAILABLE` with a retry delay.
pub(in crate::api::grpc) fn unavailable(
    message: impl Into<String>,
    retry_delay: Duration,
) -> Status {
    let details = ErrorDetails::with_retry_info(Some(retry_delay));
    Status::with_error_details(Code::Unavailable, message, details)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_stay_small_for_any_number_of_violations() {
        let mut violations = Violations::default();
        for index in 0..10_000 {
            let path = format!("instance.metadata[{index}{}]", "\u{1}ä".repeat(200));
            violations.over_limit(path, "x".repeat(5_000));
        }
        let status = violations.into_status();
        assert_eq!(status.code(), Code::ResourceExhausted);
        let headers = status.into_http::<tonic::body::Body>();
        let bytes: usize = headers
            .headers()
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 32)
            .sum();
        assert!(bytes < 8_000, "{bytes}");
    }

    #[test]
    fn malformed_field_outweighs_limits() {
        let mut violations = Violations::default();
        violations.over_limit("a", "too much");
        violations.bad("b", "wrong");
        let status = violations.into_status();
        assert_eq!(status.code(), Code::InvalidArgument);
        let fields = status.get_details_bad_request().expect("details").field_violations;
        let fields: Vec<_> = fields.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["a", "b"]);
        assert_eq!(status.message(), "a: too much (and 1 more)");
    }
}
