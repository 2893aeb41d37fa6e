//! Commands that judge a policy without a server: `check` reads it and replays `records` of the
//! audit log by it (`replay`), `explain` shows the rights of one caller at a `target`.

mod check;
mod explain;
mod record;
mod replay;
mod target;

use std::{path::Path, process::ExitCode};

use clap::{Args, Subcommand};
use waypost_auth::policy::{Policy, RuleLine};

use crate::cli::{error::CommandError, escape::escape};

/// Check a policy, and explain its decisions.
#[derive(Debug, Args)]
pub(crate) struct PolicyArguments {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    Check(check::CheckPolicyArguments),
    Explain(explain::ExplainArguments),
}

pub(crate) fn run(arguments: &PolicyArguments) -> Result<ExitCode, CommandError> {
    match &arguments.command {
        PolicyCommand::Check(arguments) => check::run(arguments),
        PolicyCommand::Explain(arguments) => explain::run(arguments),
    }
}

/// Reads a policy. All its errors are one error.
fn read(file: &Path) -> Result<Policy, CommandError> {
    Policy::read(file).map_err(|errors| CommandError::InvalidPolicy { file: shown(file), errors })
}

fn shown(file: &Path) -> String {
    escape(&file.display().to_string())
}

/// Formats a line of the file; `-` for a right that no rule gives.
fn line(line: RuleLine) -> String {
    if line == RuleLine::BUILT_IN { "-".to_owned() } else { line.0.to_string() }
}
