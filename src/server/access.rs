//! The modes of access: which callers a server lets in, by its address, TLS and policy. Strangers
//! get in by an explicit flag alone.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use waypost_auth::{certificate::Lifetime, policy::Policy};

use super::trust_files::TrustFiles;
use crate::{
    auth::{Gate, HostCheck, Trust, TrustCell},
    clock::Clock,
    config::{Config, InvalidConfig},
};

/// The interval of warnings of a server that lets strangers in.
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Reads the files that callers are judged by, checks that the whole configuration lets no stranger
/// in, and makes the gate.
///
/// Errors: all of the files, or the combination of settings.
pub(super) fn gate(config: &Config, clock: Clock) -> Result<Gate, InvalidConfig> {
    let judge = |files: TrustFiles| files.judge(&files.read(), clock.wall());
    let read = TrustFiles::of(config).map(judge).transpose()?;
    check_mode(config, read.as_ref().map(|(policy, _)| policy))?;
    let hosts = if config.listen.ip().is_loopback() && config.tls.is_none() {
        HostCheck::Local
    } else {
        HostCheck::None
    };
    Ok(match read {
        Some((policy, tls)) => {
            Gate::new(clock, Arc::new(TrustCell::new(policy, tls, clock.wall())), hosts)
        }
        None => Gate::open(clock, hosts),
    })
}

fn check_mode(config: &Config, policy: Option<&Policy>) -> Result<(), InvalidConfig> {
    let is_enforced = policy.is_some_and(Policy::is_enforced);
    if config.listen.ip().is_loopback() || config.insecure || (config.tls.is_some() && is_enforced)
    {
        return Ok(());
    }
    let reason = match config.tls {
        None => "without TLS, everyone on the way can read and change what callers send",
        Some(_) => "a policy with `enforce = false` refuses no caller",
    };
    Err(InvalidConfig(vec![format!(
        "--listen {} is not loopback: {reason}. Make certificates and a policy by `waypost ca \
         init`, or listen on loopback behind a proxy, or let everyone in by --insecure",
        config.listen
    )]))
}

/// Logs which callers the server lets in. Then warns: each hour if these are strangers, each day if
/// a certificate ends soon. Ends when `stop` is cancelled.
pub(super) async fn report(insecure: bool, gate: Gate, clock: Clock, stop: CancellationToken) {
    match gate.trust() {
        Some(trust) if trust.current().policy.is_enforced() => info!("policy in force"),
        None if !insecure => info!("no policy: every program on this machine may do everything"),
        _ => {}
    }
    let mut hours = interval(HOUR);
    let mut hour: u64 = 0;
    while stop.run_until_cancelled(hours.tick()).await.is_some() {
        match gate.trust().map(|trust| trust.current()) {
            Some(trust) if !trust.policy.is_enforced() => {
                warn!("policy not enforced: requests that it refuses are let through");
            }
            None if insecure => {
                warn!("--insecure: everyone who reaches this port may do everything");
            }
            Some(trust) if hour.is_multiple_of(24) => warn_of_ends(&trust, clock),
            _ => {}
        }
        hour += 1;
    }
}

/// Warns of certificates in the last third of their time.
fn warn_of_ends(trust: &Trust, clock: Clock) {
    let Some(tls) = &trust.tls else { return };
    let now = UNIX_EPOCH + Duration::from_millis(clock.wall().0);
    let expires = |lifetime: &Lifetime| humantime::format_rfc3339_seconds(lifetime.not_after);
    if tls.lifetime().is_in_last_third(now) {
        warn!(expires = %expires(&tls.lifetime()), "tls.crt ends soon; renew it");
    }
    for authority in tls.authority_lifetimes().iter().filter(|one| one.is_in_last_third(now)) {
        warn!(expires = %expires(authority), "a certificate in ca.crt ends soon; add its successor");
    }
}
