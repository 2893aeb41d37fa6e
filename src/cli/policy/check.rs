//! `waypost policy check`: reads a policy as the server does, and replays decisions by it.

use std::{fs::File, io::BufReader, path::PathBuf, process::ExitCode};

use clap::Args;
use serde::Serialize;

use super::{read, record::AuditRecords, replay::PolicyReplay, shown};
use crate::cli::{
    error::CommandError,
    output::{OutputFormat, Table, print, print_json},
};

/// Check a policy file, and show which decisions it would change.
///
/// Reports all errors with their lines, and exits with 64 if there is one. With --replay, decides
/// every call of an audit file by the policy, and exits with 1 if a decision differs from the
/// recorded one.
#[derive(Debug, Args)]
pub(super) struct CheckPolicyArguments {
    /// Policy file. Its key files are read, too.
    file: PathBuf,
    /// Audit file, or a log in JSON that has the audit records.
    #[arg(long, value_name = "AUDIT")]
    replay: Option<PathBuf>,
    /// Output format.
    #[arg(long, value_enum, default_value = "table")]
    output: OutputFormat,
}

#[derive(Debug, Serialize)]
struct PolicyJson {
    enforced: bool,
    sha256: String,
    key_files: Vec<String>,
}

pub(super) fn run(arguments: &CheckPolicyArguments) -> Result<ExitCode, CommandError> {
    let CheckPolicyArguments { file, replay, output } = arguments;
    let policy = read(file)?;
    if let Some(audit) = replay {
        let file = shown(audit);
        let source = |source| CommandError::File { file: file.clone(), source };
        let opened = File::open(audit).map_err(source)?;
        let mut replay = PolicyReplay::new(&policy);
        let mut records = AuditRecords::new(BufReader::new(opened));
        while let Some(record) = records.next().map_err(source)? {
            replay.decide(&record);
        }
        if replay.decisions() == 0 {
            return Err(CommandError::NoRecords { file });
        }
        return replay.report(records.malformed(), *output);
    }
    let sha256 = policy.sha256().iter().map(|byte| format!("{byte:02x}")).collect();
    let key_files = policy.files().iter().map(|file| shown(file)).collect();
    let valid = PolicyJson { enforced: policy.is_enforced(), sha256, key_files };
    match output {
        OutputFormat::Json => print_json(&valid)?,
        OutputFormat::Table => print(&table(&shown(file), &valid))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn table(file: &str, valid: &PolicyJson) -> Table<2> {
    let mut table = Table::without_header();
    table.push(["valid".into(), file.into()]);
    table.push(["enforced".into(), if valid.enforced { "yes" } else { "no" }.into()]);
    table.push(["sha256".into(), (&valid.sha256).into()]);
    for file in &valid.key_files {
        table.push(["keys".into(), file.into()]);
    }
    table
}
