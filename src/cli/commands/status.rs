//! `waypost status`: shows the registry's status.

use std::time::{Duration, SystemTime};

use anstyle::AnsiColor;
use clap::Args;
use prost_types::Timestamp;
use serde::Serialize;
use waypost_client::proto::{Access, GetStatusRequest, GetStatusResponse, Protection};

use crate::{
    cli::{
        arguments::RegistryArguments,
        error::CommandError,
        output::{OutputFormat, Table, TableCell, print, print_json},
        remote::{RemoteRegistry, admin},
    },
    clock::Clock,
    model::WallTime,
};

/// Show the registry's status.
#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    registry: RegistryArguments,
}

#[derive(Debug, Serialize)]
struct StatusJson<'a> {
    version: &'a str,
    history_id: &'a str,
    revision: u64,
    instances: u64,
    services: u64,
    leases: u64,
    watchers: u64,
    store: &'a str,
    /// The reason why writes are rejected; `None` while they are accepted.
    store_failure: Option<&'a str>,
    protection: Vec<ProtectionJson<'a>>,
    started_at: Option<String>,
    access: AccessJson<'a>,
}

#[derive(Debug, Serialize)]
struct AccessJson<'a> {
    epoch: u64,
    since: Option<String>,
    policy_sha256: &'a str,
    enforced: bool,
    insecure: bool,
    certificate_expires: Option<String>,
}

#[derive(Debug, Serialize)]
struct ProtectionJson<'a> {
    namespace: &'a str,
    held: u64,
    since: Option<String>,
    until: Option<String>,
    why: &'a str,
}

pub(crate) async fn run(arguments: StatusArguments) -> Result<(), CommandError> {
    let mut remote = RemoteRegistry::new(arguments.registry.access()?);
    let status =
        remote.call(async |channel| admin(channel).get_status(GetStatusRequest {}).await).await?;
    match arguments.registry.output {
        OutputFormat::Json => print_json(&record(&status)),
        OutputFormat::Table => print(&table(&status, Clock::start().wall())),
    }
}

fn record(status: &GetStatusResponse) -> StatusJson<'_> {
    let protection = status.protection.iter().map(|protection| ProtectionJson {
        namespace: &protection.namespace,
        held: protection.held,
        since: protection.since.as_ref().map(Timestamp::to_string),
        until: protection.until.as_ref().map(Timestamp::to_string),
        why: &protection.why,
    });
    StatusJson {
        version: &status.version,
        history_id: &status.history_id,
        revision: status.revision,
        instances: status.instances,
        services: status.services,
        leases: status.leases,
        watchers: status.watchers,
        store: &status.store,
        store_failure: Some(status.store_failure.as_str()).filter(|why| !why.is_empty()),
        protection: protection.collect(),
        started_at: status.started_at.as_ref().map(Timestamp::to_string),
        access: access_record(status.access.as_ref()),
    }
}

/// An earlier server reports nothing, and has no policy.
fn access_record(access: Option<&Access>) -> AccessJson<'_> {
    let time = |time: &Option<Timestamp>| time.as_ref().map(Timestamp::to_string);
    AccessJson {
        epoch: access.map_or(0, |access| access.epoch),
        since: access.and_then(|access| time(&access.since)),
        policy_sha256: access.map_or("", |access| &access.policy_sha256),
        enforced: access.is_some_and(|access| access.enforced),
        insecure: access.is_some_and(|access| access.insecure),
        certificate_expires: access.and_then(|access| time(&access.certificate_expires)),
    }
}

/// Returns a line about the policy, with a warning if strangers may do everything.
fn format_policy(access: &Access) -> TableCell {
    let Access { epoch, policy_sha256, enforced, insecure, .. } = access;
    let digest = policy_sha256.get(..12).unwrap_or(policy_sha256);
    let text = match (epoch, enforced) {
        (0, _) => "none: every caller may do everything".to_owned(),
        (_, true) => format!("enforced, version {epoch}, sha256 {digest}…"),
        (_, false) => format!("not enforced, version {epoch}, sha256 {digest}…"),
    };
    if *insecure { TableCell::styled(text, AnsiColor::Red.on_default()) } else { text.into() }
}

fn table(status: &GetStatusResponse, now: WallTime) -> Table<2> {
    let mut table = Table::without_header();
    let mut row = |key: &str, value: TableCell| table.push([key.into(), value]);
    row("version", (&status.version).into());
    row("history", (&status.history_id).into());
    row("revision", status.revision.to_string().into());
    row("instances", status.instances.to_string().into());
    row("services", status.services.to_string().into());
    row("leases", status.leases.to_string().into());
    row("watchers", status.watchers.to_string().into());
    row("store", (&status.store).into());
    if !status.store_failure.is_empty() {
        let why = format!("rejecting writes: {}", status.store_failure);
        row("", TableCell::styled(why, AnsiColor::Red.on_default()));
    }
    row("started", format_start(status.started_at, now).into());
    if let Some(access) = &status.access {
        row("policy", format_policy(access));
        if let Some(expires) = &access.certificate_expires {
            row("certificate", format!("until {expires}").into());
        }
    }
    for protection in &status.protection {
        row(
            "protection",
            TableCell::styled(format_protection(protection), AnsiColor::Magenta.on_default()),
        );
    }
    table
}

fn format_start(started_at: Option<Timestamp>, now: WallTime) -> String {
    let Some(started_at) = started_at else { return String::new() };
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(now.0);
    let start = SystemTime::try_from(started_at).ok();
    // `None` if the server's clock is ahead of this one.
    let uptime = start.and_then(|start| now.duration_since(start).ok());
    match uptime.map(|uptime| Duration::from_secs(uptime.as_secs())) {
        Some(uptime) => format!("{started_at} ({} ago)", humantime::format_duration(uptime)),
        None => started_at.to_string(),
    }
}

fn format_protection(protection: &Protection) -> String {
    let Protection { namespace, held, since, until, why } = protection;
    let time = |time: &Option<Timestamp>| {
        time.as_ref().map_or_else(|| "an unknown time".to_owned(), Timestamp::to_string)
    };
    let (since, until) = (time(since), time(until));
    format!(
        "{namespace}: {held} instances held since {since}: {why}; until they renew their lease, \
         until `waypost release {namespace}`, or until {until}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_is_shown_if_the_clocks_agree() {
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let now = WallTime(1_000_061_500);
        assert_eq!(format_start(at(1_000_000), now), "1970-01-12T13:46:40Z (1m 1s ago)");
        assert_eq!(format_start(at(2_000_000), now), "1970-01-24T03:33:20Z");
        assert_eq!(format_start(None, now), "");
        assert!(!format_start(at(i64::MAX), now).is_empty());
        assert!(!format_start(at(i64::MIN), now).is_empty());
    }

    #[test]
    fn protection_is_shown_for_each_namespace() {
        let protection = Protection { namespace: "shop".into(), held: 7, ..Protection::default() };
        let status = GetStatusResponse {
            protection: vec![Protection { why: "most leases expired".into(), ..protection }],
            ..GetStatusResponse::default()
        };
        let table = table(&status, WallTime(0)).to_string();
        assert!(table.contains("shop: 7 instances held since"), "{table}");
        assert_eq!(record(&status).protection[0].why, "most leases expired");
    }
}
