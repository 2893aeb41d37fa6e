//! The error of a command, as one line for its user. Never contains unescaped bytes of a peer.

use std::{error::Error, fmt, io, process::ExitStatus};

use tonic::{Code, Status};
use tonic_types::StatusExt;
use waypost_auth::policy::NoRandomness;
use waypost_bench::BenchError;
use waypost_client::{DeregisterError, Refusal, RegisterError};
use waypost_config::ConfigErrors;
use waypost_serving::exit_code::{CONFIGURATION, FAILED};

use super::{
    escape::escape,
    exit::{NOT_FOUND, NOT_RUNNABLE, exit_code},
};
use crate::{
    pki::PkiError,
    store::{BackupError, StoreError},
};

/// The error of a command. Its text is what the user sees.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The registry sent no response.
    #[error("can't reach the registry at {url}: {reason}")]
    Unreachable { url: String, reason: String },
    /// Every address failed, each with an error that another address might not return.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    AllAddresses(Vec<Self>),
    /// The arguments do not fit each other, or a file that they name is invalid.
    #[error("{0}")]
    Configuration(String),
    /// The registry refused the request.
    #[error("{message}")]
    Refused { code: Code, message: String },
    /// The registry responds, and does not serve.
    #[error("the registry does not serve")]
    NotServing,
    /// The response violates the protocol.
    #[error("invalid response from the registry: {0}")]
    InvalidResponse(&'static str),
    /// A file can't be read or written.
    #[error("{file}: {source}")]
    File { file: String, source: io::Error },
    /// A file is not a backup, or can't be restored to the directory.
    #[error("{file}: {source}")]
    Backup { file: String, source: BackupError },
    #[error("{}", escape(&.0.to_string()))]
    Store(#[from] StoreError),
    #[error("{}", escape(&.0.to_string()))]
    Bench(#[from] BenchError),
    #[error("{}", escape(&.0.to_string()))]
    Pki(#[from] PkiError),
    /// The list is printed, and each error.
    #[error("some certificates can't be used; see the errors above")]
    BadCertificates,
    #[error("can't make a token: {0}")]
    NoRandomness(#[from] NoRandomness),
    #[error("{}", invalid_policy(.file, .errors))]
    InvalidPolicy { file: String, errors: ConfigErrors },
    #[error("{file}: has no audit records of decisions")]
    NoRecords { file: String },
    /// The report is printed and shows the errors.
    #[error("the run found errors; see the report above")]
    BenchErrors,
    #[error("can't find this program's own executable: {0}")]
    CurrentProgram(#[source] io::Error),
    #[error("stopped by a signal before completion")]
    Interrupted,
    #[error("can't write the output: {0}")]
    Output(#[source] io::Error),
    #[error("can't handle signals: {0}")]
    Signals(#[source] io::Error),
    #[error("can't run {program}: {source}")]
    Spawn { program: String, source: io::Error },
    #[error("can't wait for the command: {0}")]
    Wait(#[source] io::Error),
    #[error("the command ended with {0}")]
    Command(ExitStatus),
    /// A signal arrived first.
    #[error("not registered: stopped before the registry responded")]
    Stopped,
    #[error("not deregistered, the instance stays until its lease expires: {0}")]
    Deregister(String),
}

impl CommandError {
    /// Returns the exit code: the command's own if one was started.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Command(status) => exit_code(*status),
            Self::Spawn { source, .. } if source.kind() == io::ErrorKind::NotFound => NOT_FOUND,
            Self::Spawn { .. } => NOT_RUNNABLE,
            Self::Configuration(_) | Self::InvalidPolicy { .. } => CONFIGURATION,
            _ => FAILED,
        }
    }

    /// Converts an error in the credentials for the registry.
    pub(crate) fn configuration(error: &impl fmt::Display) -> Self {
        Self::Configuration(escape(&error.to_string()))
    }

    /// Combines the transient errors of all addresses into one.
    pub(crate) fn from_attempts(mut errors: Vec<Self>) -> Self {
        if errors.len() == 1 { errors.remove(0) } else { Self::AllAddresses(errors) }
    }

    /// Converts the status of a request to the registry at `url`.
    pub(crate) fn from_status(status: &Status, url: &str) -> Self {
        // tonic made a status that has a source: the registry sent none.
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
        // The message may repeat the first violation.
        let repeated = violations.first().is_some_and(|first| message.starts_with(first.as_str()));
        let parts = (!repeated && !message.is_empty()).then(|| message.to_owned()).into_iter();
        let text = parts.chain(violations).collect::<Vec<_>>().join("; ");
        let message = if text.is_empty() { format!("refused: {code}") } else { escape(&text) };
        Self::Refused { code, message }
    }

    /// Returns whether a retry may succeed.
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

    /// Returns whether the reader of the output has closed it.
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

/// Returns the innermost source of an error: the layers above it do not help a user.
fn root(error: &(dyn Error + 'static)) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

/// Formats the errors of a policy, one a line, as the server does for its configuration.
fn invalid_policy(file: &str, errors: &ConfigErrors) -> String {
    let lines: String = errors
        .0
        .iter()
        .map(|error| format!("\n  {file}: {}", escape(&error.to_string())))
        .collect();
    format!("invalid policy, {} error(s):{lines}", errors.0.len())
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn each_violated_field_appears_once() {
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("instance.port", "is 0");
        details.add_bad_request_violation("ttl", "is too long");
        let message = "instance.port: is 0 (and 1 more)";
        let status = Status::with_error_details(Code::InvalidArgument, message, details);
        let error = CommandError::from_status(&status, "http://h:1");
        assert_eq!(error.to_string(), "instance.port: is 0; ttl: is too long");
        assert!(!error.is_transient());
    }

    #[test]
    fn refusal_is_one_line_for_any_message() {
        let error = CommandError::from_status(&Status::not_found("no\n\u{1b}[31m"), "http://h:1");
        assert_eq!(error.to_string(), "no\\n\\u{1b}[31m");
        let error = CommandError::from_status(&Status::unavailable(""), "http://h:1");
        assert!(error.is_transient());
        assert!(!error.to_string().is_empty());
    }

    #[test]
    fn reason_is_the_innermost_source() {
        let bottom = io::Error::from(io::ErrorKind::ConnectionRefused);
        let status = Status::from_error(Box::new(io::Error::other(bottom)));
        let error = CommandError::from_status(&status, "http://h:1").to_string();
        assert_eq!(error, "can't reach the registry at http://h:1: connection refused");
    }
}
