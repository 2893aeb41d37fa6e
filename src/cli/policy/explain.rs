//! `waypost policy explain`: the rights of one caller, or the rule that decides one action.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, error::ErrorKind};
use serde::Serialize;
use waypost_auth::policy::{
    Action, Explanation, Grant, Policy, Principal, PrincipalState, RuleLine, RuleOutcome,
};

use super::{line, read, shown, target::TargetArgument};
use crate::cli::{
    error::CommandError,
    output::{OutputFormat, Table, print, print_json, print_notice},
};

/// Show what a caller may do, and the rule that allows it.
///
/// With an action, shows the line of the rule that allows it; exits with 1 if none does.
#[derive(Debug, Args)]
pub(super) struct ExplainArguments {
    /// Policy file.
    file: PathBuf,
    /// Caller, such as `spiffe://waypost.internal/ns/default/sa/orders`, `token/ci` or `anonymous`.
    #[arg(value_parser = Principal::parse)]
    principal: Principal,
    /// Action: probe, discover, register, operate, status or backup.
    action: Option<Action>,
    /// Services that the action is on: NAMESPACE/SERVICE, NAMESPACE/* or */*; not needed for probe,
    /// status and backup.
    #[arg(value_name = "NAMESPACE/SERVICE")]
    target: Option<TargetArgument>,
    /// Output format.
    #[arg(long, value_enum, default_value = "table")]
    output: OutputFormat,
}

/// All rights of a caller.
#[derive(Debug, Serialize)]
struct RightsJson<'a> {
    principal: &'a str,
    /// `provable`, `unknown` or `revoked`.
    state: &'static str,
    enforced: bool,
    grants: Vec<GrantJson>,
}

#[derive(Debug, Serialize)]
struct GrantJson {
    line: Option<u32>,
    may: Vec<&'static str>,
    on: String,
    hosts: Option<Vec<String>>,
}

/// One decision, and the rules that are for the caller.
#[derive(Debug, Serialize)]
struct DecisionJson<'a> {
    principal: &'a str,
    state: &'static str,
    action: &'static str,
    on: String,
    /// `allowed`, `partly` or `denied`.
    decision: &'static str,
    line: Option<u32>,
    /// Where instances may be registered; `null`: everywhere.
    hosts: Option<Vec<String>>,
    enforced: bool,
    rules: Vec<RuleJson<'a>>,
}

#[derive(Debug, Serialize)]
struct RuleJson<'a> {
    line: u32,
    who: &'a str,
    result: String,
}

pub(super) fn run(arguments: &ExplainArguments) -> Result<ExitCode, CommandError> {
    let ExplainArguments { file, action, target, output, .. } = arguments;
    let target = match (action, target) {
        (Some(action), None) if action.is_on_server() => Some(TargetArgument::Server),
        (Some(_), None) => usage("the action needs NAMESPACE/SERVICE"),
        (_, target) => target.clone(),
    };
    let policy = read(file)?;
    if !policy.is_enforced() {
        print_notice(&"the policy has enforce = false: what it denies is logged, and let through");
    }
    match (action, target) {
        (Some(action), Some(target)) => {
            Explained::new(arguments, &policy, *action, target).print(*output)
        }
        _ => list(arguments, &policy).map(|()| ExitCode::SUCCESS),
    }
}

/// Exits as on other wrong arguments.
fn usage(message: &str) -> ! {
    clap::Error::raw(ErrorKind::MissingRequiredArgument, format!("{message}\n")).exit()
}

fn list(arguments: &ExplainArguments, policy: &Policy) -> Result<(), CommandError> {
    let principal = &arguments.principal;
    let state = policy.state(principal);
    let grants = match state {
        PrincipalState::Provable => policy.grants(principal).describe(),
        PrincipalState::Unknown | PrincipalState::Revoked => Vec::new(),
    };
    if arguments.output == OutputFormat::Json {
        return print_json(&RightsJson {
            principal: principal.as_str(),
            state: state_name(state),
            enforced: policy.is_enforced(),
            grants: grants.into_iter().map(GrantJson::from).collect(),
        });
    }
    if grants.is_empty() {
        let reason = reason(state).unwrap_or("no rule allows it anything");
        return print(&format_args!("{principal}: {reason}\n"));
    }
    let mut table = Table::new(["LINE", "MAY", "ON", "HOSTS"]);
    for Grant { line: rule, actions, on, hosts } in grants {
        let actions: Vec<_> = actions.into_iter().map(Action::name).collect();
        let hosts = hosts.map_or_else(String::new, |hosts| hosts.join(","));
        table.push([line(rule).into(), actions.join(",").into(), on.into(), hosts.into()]);
    }
    print(&table)
}

impl From<Grant> for GrantJson {
    fn from(grant: Grant) -> Self {
        Self {
            line: Some(grant.line.0).filter(|line| *line > 0),
            may: grant.actions.into_iter().map(Action::name).collect(),
            on: grant.on,
            hosts: grant.hosts,
        }
    }
}

fn state_name(state: PrincipalState) -> &'static str {
    match state {
        PrincipalState::Provable => "provable",
        PrincipalState::Unknown => "unknown",
        PrincipalState::Revoked => "revoked",
    }
}

/// Returns the reason why a caller in this state has no rights.
fn reason(state: PrincipalState) -> Option<&'static str> {
    match state {
        PrincipalState::Provable => None,
        PrincipalState::Unknown => Some("no token or issuer of the policy has this name"),
        PrincipalState::Revoked => Some("is revoked"),
    }
}

/// One action of a caller, and the decision of the policy.
struct Explained<'a> {
    arguments: &'a ExplainArguments,
    action: Action,
    target: TargetArgument,
    explanation: Explanation,
    /// The rule that allows a part of the namespace, where none allows all of it.
    partly: Option<RuleLine>,
    /// The hosts of the rule that allows `register`.
    hosts: Option<Vec<String>>,
    enforced: bool,
}

impl<'a> Explained<'a> {
    fn new(
        arguments: &'a ExplainArguments,
        policy: &Policy,
        action: Action,
        target: TargetArgument,
    ) -> Self {
        let explanation = policy.explain(&arguments.principal, action, target.scope());
        let grants = policy.grants(&arguments.principal);
        let partly = match (&target, explanation.decision) {
            // A lookup of the namespace is cut to these services.
            (TargetArgument::Namespace(namespace), Err(_))
                if action == Action::Discover
                    && explanation.principal == PrincipalState::Provable =>
            {
                grants.decide_any(action, namespace).ok()
            }
            _ => None,
        };
        let by_rule =
            grants.describe().into_iter().find(|grant| Ok(grant.line) == explanation.decision);
        let hosts = by_rule.and_then(|grant| grant.hosts).filter(|_| action == Action::Register);
        let enforced = policy.is_enforced();
        Self { arguments, action, target, explanation, partly, hosts, enforced }
    }

    fn print(&self, output: OutputFormat) -> Result<ExitCode, CommandError> {
        match output {
            OutputFormat::Table => print(&self.sentences())?,
            OutputFormat::Json => print_json(&self.record())?,
        }
        let allowed = self.explanation.decision.is_ok() || self.partly.is_some();
        Ok(if allowed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn sentences(&self) -> String {
        let Self { arguments: ExplainArguments { file, principal, .. }, action, target, .. } = self;
        let file = shown(file);
        match (self.explanation.decision, self.partly) {
            (Ok(RuleLine::BUILT_IN), _) => format!("every known caller may {action}\n"),
            (Ok(rule), _) => {
                let hosts = self.hosts.iter().map(|hosts| format!(" at {}", hosts.join(", ")));
                let hosts: String = hosts.collect();
                format!("{file}:{}: allows {principal} to {action} {target}{hosts}\n", line(rule))
            }
            (Err(_), Some(rule)) => {
                let line = line(rule);
                format!("{file}:{line}: allows {principal} to {action} a part of {target}\n")
            }
            (Err(_), None) => match reason(self.explanation.principal) {
                Some(reason) => format!("{file}: {principal}: {reason}\n"),
                None => self.denied(&file),
            },
        }
    }

    /// Formats a denial, with each rule that is for the caller.
    fn denied(&self, file: &str) -> String {
        let Self { arguments: ExplainArguments { principal, .. }, action, target, .. } = self;
        let rules = self.explanation.rules.iter().map(|rule| {
            format!(
                "{file}:{}: who = \"{}\" {}\n",
                line(rule.line),
                rule.who,
                result(&rule.outcome)
            )
        });
        let rules: String = rules.collect();
        format!("{file}: no rule allows {principal} to {action} {target}\n{rules}")
    }

    fn record(&self) -> DecisionJson<'_> {
        let principal = &self.arguments.principal;
        let Explanation { decision, principal: state, rules } = &self.explanation;
        DecisionJson {
            principal: principal.as_str(),
            state: state_name(*state),
            action: self.action.name(),
            on: self.target.to_string(),
            decision: match (decision, self.partly) {
                (Ok(_), _) => "allowed",
                (Err(_), Some(_)) => "partly",
                (Err(_), None) => "denied",
            },
            line: decision.ok().or(self.partly).map(|line| line.0).filter(|line| *line > 0),
            hosts: self.hosts.clone(),
            enforced: self.enforced,
            rules: rules
                .iter()
                .map(|one| RuleJson {
                    line: one.line.0,
                    who: &one.who,
                    result: result(&one.outcome),
                })
                .collect(),
        }
    }
}

fn result(outcome: &RuleOutcome) -> String {
    match outcome {
        RuleOutcome::Allows => "allows it".to_owned(),
        RuleOutcome::OtherActions(actions) => {
            let actions: Vec<_> = actions.iter().map(|action| action.name()).collect();
            format!("allows {}", actions.join(", "))
        }
        RuleOutcome::OtherServices(services) => format!("allows it on {}", services.join(", ")),
        RuleOutcome::InvalidCapture => "fits, but captures no valid name".to_owned(),
    }
}
