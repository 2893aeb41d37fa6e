//! The search for an eligible candidate, for any policy. If the candidates that the policy drew are
//! ejected, it looks at all; if most are ejected, it ignores ejection, so that the few left are not
//! overloaded.

use std::sync::Arc;

use super::{
    choice::Choice,
    no_instance::NoInstance,
    policy::{BalancingPolicy, prefer},
};
use crate::endpoint::{Admission, Endpoint};

/// Finds a candidate that the call accepts and that is not ejected; if most are ejected, any that
/// it accepts.
#[inline]
pub(super) fn search<'a, P: BalancingPolicy, S: Fn(&Endpoint) -> bool>(
    policy: &P,
    choice: &Choice<'a, '_, S>,
) -> Result<Option<&'a Arc<Endpoint>>, NoInstance> {
    match policy.choose(choice) {
        Some(index) => Ok(Some(&choice.endpoints.as_slice()[index])),
        None => search_all(policy, choice),
    }
}

/// Looks at all candidates, after the policy found none.
#[cold]
fn search_all<'a, P: BalancingPolicy, S: Fn(&Endpoint) -> bool>(
    policy: &P,
    choice: &Choice<'a, '_, S>,
) -> Result<Option<&'a Arc<Endpoint>>, NoInstance> {
    let mut choice = Choice { ..*choice };
    let mut chosen = choose_healthy::<P, S>(&choice);
    if chosen.is_none()
        && let Some(others) = &choice.candidates.others
    {
        choice.endpoints = others;
        chosen = policy.choose(&choice).or_else(|| choose_healthy::<P, S>(&choice));
    }
    if chosen.is_none() {
        chosen = choose_regardless::<P, S>(&choice)?;
    }
    Ok(chosen.map(|index| &choice.endpoints.as_slice()[index]))
}

/// Chooses among all that are accepted and not ejected; none if more than half of the accepted are
/// ejected.
fn choose_healthy<P: BalancingPolicy, S: Fn(&Endpoint) -> bool>(
    choice: &Choice<'_, '_, S>,
) -> Option<usize> {
    let (endpoints, now) = (choice.endpoints, choice.now);
    let accepted = || endpoints.as_slice().iter().filter(|endpoint| (choice.accepts)(endpoint));
    let admitted =
        accepted().filter(|endpoint| endpoint.admission(now) == Admission::Admitted).count();
    if admitted * 2 < accepted().count() {
        return None;
    }
    let is_admitted = |endpoint: &Endpoint| endpoint.admission(now) == Admission::Admitted;
    choose_from::<P, S>(choice, |endpoint| is_admitted(endpoint) && (choice.accepts)(endpoint))
}

/// Chooses while most are ejected: any accepted one; for a call that wants healthy instances only,
/// one of the few that are not ejected.
fn choose_regardless<P: BalancingPolicy, S: Fn(&Endpoint) -> bool>(
    choice: &Choice<'_, '_, S>,
) -> Result<Option<usize>, NoInstance> {
    let now = choice.now;
    if !choice.context.healthy_only {
        return Ok(choose_from::<P, S>(choice, choice.accepts));
    }
    let is_admitted = |endpoint: &Endpoint| endpoint.admission(now) == Admission::Admitted;
    let admitted = choose_from::<P, S>(choice, |it| is_admitted(it) && (choice.accepts)(it));
    let endpoints = choice.endpoints.as_slice().iter();
    match endpoints.filter(|endpoint| (choice.accepts)(endpoint)).count() {
        instances @ 1.. if admitted.is_none() => Err(NoInstance::AllEjected { instances }),
        _ => Ok(admitted),
    }
}

/// Chooses the preferred one of two accepted candidates, drawn by weight.
fn choose_from<P: BalancingPolicy, S>(
    choice: &Choice<'_, '_, S>,
    accepts: impl Fn(&Endpoint) -> bool,
) -> Option<usize> {
    let (endpoints, random) = (choice.endpoints, choice.random);
    let (first, second) = endpoints.draw_where(random.next(), random.next(), accepts)?;
    Some(prefer::<P>(endpoints, first, second, choice.now))
}
