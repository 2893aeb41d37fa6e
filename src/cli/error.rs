//! Why a command failed, in one line for its user. It must never show what a peer sent unescaped.

use std::{error::Error, io, process::ExitStatus};

use tonic::{Code, Status};
use tonic_types::StatusExt;
use waypost_bench::BenchError;
use waypost_client::{DeregisterError, Refusal, RegisterError};

use super::{
    escape::escape,
    exit::{NOT_FOUND, NOT_RUNNABLE, exit_code},
};
use crate::store::{ImageError, StoreError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The registry gave no answer.
    #[error("can't reach the registry at {url}: {reason}")]
    Unreachable { url: String, reason: String },
    /// The same, or an answer that another address may not give, from each address.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    AllAddresses(Vec<Self>),
    /// The registry answered, and the answer was no.
    #[error("{message}")]
    Refused { code: Code, message: String },
    /// The registry sent what makes no sense.
    #[error("the registry's answer makes no sense: {0}")]
    InvalidResponse(&'static str),
    /// A file can't be used.
    #[error("{file}: {source}")]
    File { file: String, source: io::Error },
    /// A file holds no image, or has no place where it could go.
    #[error("{file}: {source}")]
    Backup { file: String, source: ImageError },
    #[error("{}", escape(&.0.to_string()))]
    Store(#[from] StoreError),
    #[error("{}", escape(&.0.to_string()))]
    Bench(#[from] BenchError),
    /// The figures are out, and say what went wrong.
    #[error("the server did not do all that it should have")]
    BenchErrors,
    #[error("can't tell which program this is: {0}")]
    CurrentProgram(#[source] io::Error),
    #[error("stopped before it was done")]
    Interrupted,
    #[error("can't write the output: {0}")]
    Output(#[source] io::Error),
    #[error("can't handle signals: {0}")]
    Signals(#[source] io::Error),
    #[error("can't run {program}: {source}")]
    Spawn { program: String, source: io::Error },
    #[error("can't tell how the command ended: {0}")]
    Wait(#[source] io::Error),
    #[error("the command ended with {0}")]
    Command(ExitStatus),
    /// A signal came first.
    #[error("not registered: stopped before the registry answered")]
    Stopped,
    #[error("the instance may still be registered until its lease runs out: {0}")]
    Deregister(String),
}

impl CommandError {
    /// The exit code for it: that of the command, where one was to run in this program's place.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Command(status) => exit_code(*status),
            Self::Spawn { source, .. } if source.kind() == io::ErrorKind::NotFound => NOT_FOUND,
            Self::Spawn { .. } => NOT_RUNNABLE,
            _ => 1,
        }
    }

    /// The failures of all addresses, each of which may do later.
    pub(crate) fn from_attempts(mut failures: Vec<Self>) -> Self {
        if failures.len() == 1 { failures.remove(0) } else { Self::AllAddresses(failures) }
    }

    /// What a status means that came of a request to the registry at `url`.
    pub(crate) fn from_status(status: &Status, url: &str) -> Self {
        // A status that has a source was made here, for want of one from the registry.
        if let Some(source) = status.source() {
            return Self::Unreachable { url: escape(url), reason: escape(&root(source)) };
        }
        let violations = status.get_details_bad_request().map(|found| found.field_violations);
        let violations = violations.unwrap_or_default();
        let fields = violations
            .iter()
            .map(|violation| (violation.field.as_str(), violation.description.as_str()));
        Self::refused(status.code(), status.message(), fields)
    }

    fn refused<'a>(
        code: Code,
        message: &str,
        violations: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let violations: Vec<String> = violations
            .map(|(field, description)| match field {
                "" => description.to_owned(),
                field => format!("{field}: {description}"),
            })
            .collect();
        // The message may be no more than the first of the violations.
        let told = violations.first().is_some_and(|first| message.starts_with(first.as_str()));
        let parts = (!told && !message.is_empty()).then(|| message.to_owned()).into_iter();
        let text = parts.chain(violations).collect::<Vec<_>>().join("; ");
        let message = if text.is_empty() { format!("refused: {code}") } else { escape(&text) };
        Self::Refused { code, message }
    }

    /// Whether asking again may do.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::AllAddresses(_) => true,
            Self::Refused { code, .. } => matches!(
                code,
                Code::Unavailable
                    | Code::DeadlineExceeded
                    | Code::Cancelled
                    | Code::Aborted
                    | Code::Unknown
                    | Code::Internal
            ),
            _ => false,
        }
    }

    /// Whether nobody reads the output any more.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl From<&Refusal> for CommandError {
    fn from(refusal: &Refusal) -> Self {
        let fields = refusal
            .violations
            .iter()
            .map(|violation| (violation.field.as_str(), violation.description.as_str()));
        Self::refused(refusal.code, &refusal.message, fields)
    }
}

impl From<RegisterError> for CommandError {
    fn from(error: RegisterError) -> Self {
        match &error {
            RegisterError::Invalid(refusal)
            | RegisterError::LimitReached(refusal)
            | RegisterError::Denied(refusal)
            | RegisterError::Refused(refusal) => refusal.into(),
            other => Self::Refused { code: Code::Unknown, message: escape(&other.to_string()) },
        }
    }
}

impl From<DeregisterError> for CommandError {
    fn from(error: DeregisterError) -> Self {
        Self::Deregister(match &error {
            DeregisterError::Unreachable(status) => escape(status.message()),
            DeregisterError::Refused(refusal) => Self::from(refusal).to_string(),
            other => escape(&other.to_string()),
        })
    }
}

/// What is at the bottom of an error: the layers above it tell a user nothing.
fn root(error: &(dyn Error + 'static)) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn every_violated_field_is_named_once() {
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("instance.port", "is 0");
        details.add_bad_request_violation("ttl", "is too long");
        let message = "instance.port: is 0 (and 1 more)";
        let status = Status::with_error_details(Code::InvalidArgument, message, details);
        let failure = CommandError::from_status(&status, "http://h:1");
        assert_eq!(failure.to_string(), "instance.port: is 0; ttl: is too long");
        assert!(!failure.is_transient());
    }

    #[test]
    fn a_refusal_is_one_line_whatever_the_registry_says() {
        let failure = CommandError::from_status(&Status::not_found("no\n\u{1b}[31m"), "http://h:1");
        assert_eq!(failure.to_string(), "no\\n\\u{1b}[31m");
        let failure = CommandError::from_status(&Status::unavailable(""), "http://h:1");
        assert!(failure.is_transient());
        assert!(!failure.to_string().is_empty());
    }

    #[test]
    fn the_reason_is_what_is_at_the_bottom() {
        let bottom = io::Error::from(io::ErrorKind::ConnectionRefused);
        let status = Status::from_error(Box::new(io::Error::other(bottom)));
        let failure = CommandError::from_status(&status, "http://h:1").to_string();
        assert_eq!(failure, "can't reach the registry at http://h:1: connection refused");
    }
}
