//! `waypost whoami`: the caller's identity and rights, as the registry sees them.

use clap::Args;
use prost_types::Timestamp;
use serde::Serialize;
use waypost_client::proto::{Grant, WhoAmIRequest, WhoAmIResponse};

use crate::cli::{
    arguments::RegistryArguments,
    error::CommandError,
    output::{OutputFormat, Table, TableCell, print, print_json},
    remote::{RemoteRegistry, admin},
};

/// Show the caller's identity and rights, as the registry sees them.
///
/// The caller is whom --tls and --token-file name; with both, it is the token's.
#[derive(Debug, Args)]
pub(crate) struct WhoamiArguments {
    #[command(flatten)]
    registry: RegistryArguments,
}

#[derive(Debug, Serialize)]
struct WhoamiJson<'a> {
    /// `None` if the registry has no policy.
    principal: Option<&'a str>,
    via: Option<&'a str>,
    expires: Option<String>,
    epoch: u64,
    grants: Vec<GrantJson<'a>>,
}

#[derive(Debug, Serialize)]
struct GrantJson<'a> {
    actions: &'a [String],
    on: &'a str,
    hosts: &'a [String],
    /// The line in the policy; `None` for rights that no rule gives.
    rule: Option<u32>,
}

pub(crate) async fn run(arguments: WhoamiArguments) -> Result<(), CommandError> {
    let mut remote = RemoteRegistry::new(arguments.registry.access()?);
    let caller =
        remote.call(async |channel| admin(channel).who_am_i(WhoAmIRequest {}).await).await?;
    match arguments.registry.output {
        OutputFormat::Json => print_json(&record(&caller)),
        OutputFormat::Table => print(&table(&caller)),
    }
}

fn record(caller: &WhoAmIResponse) -> WhoamiJson<'_> {
    let grants = caller.grants.iter().map(|Grant { actions, on, hosts, rule }| GrantJson {
        actions,
        on,
        hosts,
        rule: rule_line(*rule),
    });
    WhoamiJson {
        principal: non_empty(&caller.principal),
        via: non_empty(&caller.via),
        expires: caller.expires.as_ref().map(Timestamp::to_string),
        epoch: caller.epoch,
        grants: grants.collect(),
    }
}

fn table(caller: &WhoAmIResponse) -> Table<2> {
    let mut table = Table::without_header();
    let mut row = |key: &str, value: TableCell| table.push([key.into(), value]);
    match non_empty(&caller.principal) {
        None => row("principal", "none: the registry has no policy".into()),
        Some(principal) => {
            row("principal", principal.into());
            row("via", (&caller.via).into());
            if let Some(expires) = &caller.expires {
                row("expires", expires.to_string().into());
            }
            row("policy", format!("version {}", caller.epoch).into());
        }
    }
    for grant in &caller.grants {
        row("may", format_grant(grant).into());
    }
    table
}

fn format_grant(Grant { actions, on, hosts, rule }: &Grant) -> String {
    let mut text = actions.join(", ");
    if !on.is_empty() {
        text += &format!(" on {on}");
    }
    if !hosts.is_empty() {
        text += &format!(" at {}", hosts.join(", "));
    }
    match rule_line(*rule) {
        Some(line) => text + &format!(" (line {line})"),
        None => text,
    }
}

fn rule_line(rule: u32) -> Option<u32> {
    Some(rule).filter(|line| *line > 0)
}

fn non_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_one_line() {
        let grant = |hosts: &[&str], rule| Grant {
            actions: vec!["discover".into(), "register".into()],
            on: "shop/*".into(),
            hosts: hosts.iter().map(ToString::to_string).collect(),
            rule,
        };
        assert_eq!(format_grant(&grant(&[], 0)), "discover, register on shop/*");
        let text = format_grant(&grant(&["peer", "10.0.0.0/8"], 7));
        assert_eq!(text, "discover, register on shop/* at peer, 10.0.0.0/8 (line 7)");
    }
}
