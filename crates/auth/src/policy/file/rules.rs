//! Reads the rules (`[[allow]]`).

use std::sync::Arc;

use waypost_config::{
    Invalid, Section,
    value::{Value, from_str, invalid, string},
};

use super::{list, names::Names, tables};
use crate::policy::{
    action::Action,
    grants::{RuleLine, host::HostRule},
    pattern::{PrincipalPattern, TargetPattern},
    principal::ANONYMOUS,
    rule::Rule,
};

pub(super) fn read(file: &mut Section<'_>, names: &Names<'_>) -> Result<Vec<Rule>, Invalid> {
    tables(file, "allow", |section| read_rule(section, names))
}

fn read_rule(section: &mut Section<'_>, names: &Names<'_>) -> Result<Rule, Invalid> {
    let line = u32::try_from(section.line(section.offset())).unwrap_or(u32::MAX);
    let who = list(section, "who", |value| names.pattern(value));
    let may = list(section, "may", from_str::<Action>);
    let who_captures = |has: fn(&PrincipalPattern) -> bool| {
        who.as_ref().map_or(true, |patterns| patterns.iter().all(has))
    };
    let has_namespace = who_captures(PrincipalPattern::has_namespace);
    let has_service = who_captures(PrincipalPattern::has_service);
    let on = section
        .has("on")
        .then(|| list(section, "on", |value| target(value, has_namespace, has_service)))
        .transpose();
    let hosts = section.has("hosts").then(|| list(section, "hosts", from_str)).transpose();
    let (who, may) = (who?, may?);
    let anonymous = check_anonymous(section, &who, &may);
    let on = on.and_then(|on| check_on(section, &may, on));
    if section.has("hosts") && !may.contains(&Action::Register) {
        return Err(section.error("hosts", "is for register, which the rule does not allow"));
    }
    anonymous?;
    Ok(Rule {
        line: RuleLine(line),
        who,
        actions: may.into_iter().collect(),
        on: on?,
        hosts: hosts?.map(Arc::<[HostRule]>::from),
    })
}

/// Reads a pattern of services, whose captures every pattern of `who` must have.
fn target(
    value: Value<'_>,
    has_namespace: bool,
    has_service: bool,
) -> Result<TargetPattern, String> {
    let text = string(value)?;
    let pattern = TargetPattern::parse(&text).map_err(|reason| invalid(&text, &reason))?;
    let missing = [
        ("{namespace}", pattern.needs_namespace() && !has_namespace),
        ("{service}", pattern.needs_service() && !has_service),
    ];
    match missing.iter().find(|(_, is_missing)| *is_missing) {
        Some((capture, _)) => {
            let reason = format!("uses {capture}, which not every pattern of who captures");
            Err(invalid(&text, &reason))
        }
        None => Ok(pattern),
    }
}

/// Checks that callers without credentials get no right but `probe` and `discover`.
fn check_anonymous(
    section: &mut Section<'_>,
    who: &[PrincipalPattern],
    may: &[Action],
) -> Result<(), Invalid> {
    let is_harmless = |action: &Action| matches!(action, Action::Probe | Action::Discover);
    let is_anonymous = who.iter().any(|pattern| pattern.as_str() == ANONYMOUS);
    match may.iter().find(|action| !is_harmless(action)) {
        Some(action) if is_anonymous => {
            let message = format!("{action} is not for anonymous: it may probe and discover");
            Err(section.error("may", message))
        }
        _ => Ok(()),
    }
}

/// Returns the services of a rule. Rights on the server are on everything.
fn check_on(
    section: &mut Section<'_>,
    may: &[Action],
    on: Option<Vec<TargetPattern>>,
) -> Result<Vec<TargetPattern>, Invalid> {
    let of_server = may.iter().find(|action| action.is_on_server());
    let of_services = may.iter().find(|action| !action.is_on_server());
    match (on, of_server, of_services) {
        (Some(on), Some(action), _) if !on.iter().any(TargetPattern::is_everything) => {
            let message = format!("{action} is on the server as a whole: it needs */*");
            Err(section.error("on", message))
        }
        (Some(on), ..) => Ok(on),
        (None, _, Some(action)) => {
            let message = format!("is missing: {action} needs it, and */* is everything");
            Err(section.error("on", message))
        }
        (None, _, None) => Ok(vec![TargetPattern::everything()]),
    }
}
