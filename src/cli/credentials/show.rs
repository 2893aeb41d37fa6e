//! `waypost ca show`: all certificates of an authority.

use std::time::{Duration, SystemTime};

use anstyle::{AnsiColor, Style};
use humantime::format_rfc3339_seconds;
use serde::Serialize;
use waypost_auth::certificate::Lifetime;

use super::now;
use crate::{
    cli::{
        error::CommandError,
        escape::escape,
        output::{OutputFormat, Table, TableCell, print, print_json, print_notice},
    },
    pki::{CertificateDetails, PkiDirectory},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, Serialize)]
struct CertificateJson {
    certificate: String,
    identity: String,
    hosts: Vec<String>,
    not_before: String,
    not_after: String,
    days_left: i64,
    sha256: String,
}

/// Lists the certificates. An error of one hides no other, and is the result.
pub(super) fn run(directory: &PkiDirectory, output: OutputFormat) -> Result<(), CommandError> {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for entry in directory.certificates()? {
        match entry.certificate {
            Ok(details) => found.push((entry.path.display().to_string(), details)),
            Err(error) => errors.push(error),
        }
    }
    if found.is_empty() && errors.len() == 1 {
        return Err(errors.remove(0).into());
    }
    let now = now();
    match output {
        OutputFormat::Json => print_json(
            &found
                .into_iter()
                .map(|(path, details)| record(path, details, now))
                .collect::<Vec<_>>(),
        )?,
        OutputFormat::Table if found.is_empty() => {}
        OutputFormat::Table => print(&table(&found, now))?,
    }
    for error in &errors {
        print_notice(&escape(&error.to_string()));
    }
    if errors.is_empty() { Ok(()) } else { Err(CommandError::BadCertificates) }
}

fn table(found: &[(String, CertificateDetails)], now: SystemTime) -> Table<5> {
    let mut table = Table::new(["CERTIFICATE", "IDENTITY", "HOSTS", "UNTIL", "LEFT"]);
    for (path, details) in found {
        let until = format_rfc3339_seconds(details.not_after).to_string();
        let left = match days_left(details, now) {
            days if days < 0 => "expired".to_owned(),
            1 => "1 day".to_owned(),
            days => format!("{days} days"),
        };
        table.push([
            path.into(),
            details.uris.join(",").into(),
            details.hosts.join(",").into(),
            until.into(),
            TableCell::styled(left, style(details, now)),
        ]);
    }
    table
}

fn record(certificate: String, details: CertificateDetails, now: SystemTime) -> CertificateJson {
    let days_left = days_left(&details, now);
    let time = |time| format_rfc3339_seconds(time).to_string();
    CertificateJson {
        certificate,
        identity: details.uris.join(","),
        not_before: time(details.not_before),
        not_after: time(details.not_after),
        days_left,
        sha256: details.sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
        hosts: details.hosts,
    }
}

/// Returns the whole days that are left; negative after the end.
fn days_left(details: &CertificateDetails, now: SystemTime) -> i64 {
    let days = |time: Duration| i64::try_from(time.as_secs() / DAY.as_secs()).unwrap_or(i64::MAX);
    match details.not_after.duration_since(now) {
        Ok(left) => days(left),
        Err(past) => -1 - days(past.duration()),
    }
}

/// Red after the end; yellow in the last third, in which the certificate should be renewed.
fn style(details: &CertificateDetails, now: SystemTime) -> Style {
    let CertificateDetails { not_before, not_after, .. } = *details;
    let lifetime = Lifetime { not_before, not_after };
    if lifetime.is_over(now) {
        AnsiColor::Red.on_default()
    } else if lifetime.is_in_last_third(now) {
        AnsiColor::Yellow.on_default()
    } else {
        Style::new()
    }
}
