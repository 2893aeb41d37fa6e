//! Decisions of the past, made again by another policy.
//!
//! Registrations are judged by their service alone: records have no hosts.
//! Pure, but for the report.

use std::{collections::BTreeMap, process::ExitCode};

use serde::Serialize;
use waypost_auth::policy::{Action, Grant, Grants, Policy, RecordedUse};

use super::{record::RecordedCall, target::TargetArgument};
use crate::cli::{
    error::CommandError,
    output::{OutputFormat, Table, print, print_json, print_notice},
};

/// The greatest number of different changes that are listed.
const CHANGES_MAX: usize = 10_000;

/// Decisions that were made, and those of a policy.
pub(super) struct PolicyReplay<'a> {
    policy: &'a Policy,
    decisions: u64,
    changed: u64,
    changes: BTreeMap<DecisionChange, u64>,
    /// Registrations whose host, which records do not have, may decide.
    undecided: u64,
}

/// One decision that differs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct DecisionChange {
    principal: String,
    action: &'static str,
    on: String,
    before: &'static str,
    after: &'static str,
    /// The line of the rule that allows it.
    line: Option<u32>,
}

#[derive(Debug, Serialize)]
struct ReplayJson<'a> {
    decisions: u64,
    changed: u64,
    undecided: u64,
    changes: Vec<ChangeJson<'a>>,
}

#[derive(Debug, Serialize)]
struct ChangeJson<'a> {
    count: u64,
    #[serde(flatten)]
    change: &'a DecisionChange,
}

const ALLOWED: &str = "allowed";
const DENIED: &str = "denied";

/// The reason of a registration that is refused for its host.
const HOST_NOT_ALLOWED: &str = "HOST_NOT_ALLOWED";
/// The reason of a call that needs a right, and came without credentials.
const NO_CREDENTIALS: &str = "NO_CREDENTIALS";
/// The reason of a request that is refused before the policy is asked.
const WRONG_AUTHORITY: &str = "WRONG_AUTHORITY";

impl<'a> PolicyReplay<'a> {
    pub(super) fn new(policy: &'a Policy) -> Self {
        Self { policy, decisions: 0, changed: 0, changes: BTreeMap::new(), undecided: 0 }
    }

    /// The number of decisions that were made again.
    pub(super) fn decisions(&self) -> u64 {
        self.decisions
    }

    /// Makes a recorded decision again.
    pub(super) fn decide<'r>(&mut self, record: &'r RecordedCall) {
        let some = |text: &'r Option<String>| text.as_deref().filter(|text| !text.is_empty());
        let (namespace, service) = (some(&record.namespace), some(&record.service));
        let principal = match record.principal.as_str() {
            // Without credentials there is no name, and a rule for `anonymous` can allow it.
            "" if record.reason.as_deref() == Some(NO_CREDENTIALS) => "anonymous",
            principal => principal,
        };
        let recorded = RecordedUse::parse(principal, &record.action, namespace, service);
        let (Ok(recorded), Some(before)) = (recorded, outcome(record)) else { return };
        let count = record.count.unwrap_or(1).max(1);
        self.decisions = self.decisions.saturating_add(count);
        let decision = self.policy.decide_again(&recorded);
        let after = if decision.is_ok() { ALLOWED } else { DENIED };
        let (principal, action) = (recorded.principal(), recorded.action());
        let host_decided = record.reason.as_deref() == Some(HOST_NOT_ALLOWED);
        if action == Action::Register
            && decision.is_ok()
            && (host_decided || has_host_rules(&self.policy.grants(principal)))
        {
            self.undecided = self.undecided.saturating_add(count);
        }
        if before == after || (host_decided && decision.is_ok()) {
            return;
        }
        let line = decision.ok().map(|line| line.0).filter(|line| *line > 0);
        let (principal, on) =
            (principal.to_string(), TargetArgument::from(recorded.scope()).to_string());
        self.count(
            DecisionChange { principal, action: action.name(), on, before, after, line },
            count,
        );
    }

    fn count(&mut self, change: DecisionChange, count: u64) {
        self.changed = self.changed.saturating_add(count);
        if self.changes.len() < CHANGES_MAX || self.changes.contains_key(&change) {
            let counted = self.changes.entry(change).or_default();
            *counted = counted.saturating_add(count);
        }
    }

    /// Prints the changes. The exit code is 1 if there are any.
    pub(super) fn report(
        &self,
        malformed: u64,
        output: OutputFormat,
    ) -> Result<ExitCode, CommandError> {
        let Self { decisions, changed, undecided, .. } = *self;
        if malformed > 0 {
            print_notice(&format_args!("passed over {malformed} lines that are not JSON"));
        }
        if undecided > 0 {
            print_notice(&format_args!(
                "{undecided} registrations depend on hosts, which records do not have"
            ));
        }
        let shown: u64 = self.changes.values().sum();
        if shown < changed {
            print_notice(&format_args!("{} more changes are not listed", changed - shown));
        }
        match output {
            OutputFormat::Json => print_json(&ReplayJson {
                decisions,
                changed,
                undecided,
                changes: self
                    .changes
                    .iter()
                    .map(|(change, count)| ChangeJson { count: *count, change })
                    .collect(),
            })?,
            OutputFormat::Table if changed == 0 => {
                print(&format_args!("{decisions} decisions, none would change\n"))?;
            }
            OutputFormat::Table => {
                print(&self.table())?;
                print(&format_args!("{decisions} decisions, {changed} would change\n"))?;
            }
        }
        Ok(if changed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn table(&self) -> Table<7> {
        let header = ["COUNT", "CALLER", "ACTION", "ON", "BEFORE", "AFTER", "LINE"];
        let mut table = Table::new(header);
        for (change, count) in &self.changes {
            let DecisionChange { principal, action, on, before, after, line } = change;
            let line = line.map_or_else(String::new, |line| line.to_string());
            table.push([
                count.to_string().into(),
                principal.into(),
                action.into(),
                on.into(),
                before.into(),
                after.into(),
                line.into(),
            ]);
        }
        table
    }
}

/// Returns the decision that was made. `None` if the policy made none.
fn outcome(record: &RecordedCall) -> Option<&'static str> {
    match (record.outcome.as_str(), record.reason.as_deref()) {
        // The policy had allowed it.
        ("allowed" | "limited" | "failed", _) => Some(ALLOWED),
        ("denied", Some(WRONG_AUTHORITY)) => None,
        // So is `anonymous` refused where it lacks the right.
        ("denied", _) | ("unauthenticated", Some(NO_CREDENTIALS)) => Some(DENIED),
        _ => None,
    }
}

/// Returns whether a rule limits the hosts of registrations.
fn has_host_rules(grants: &Grants) -> bool {
    let limits = |grant: &Grant| grant.hosts.is_some() && grant.actions.contains(&Action::Register);
    grants.describe().iter().any(limits)
}
