//! The modes of access: which callers a server lets in, by its address, TLS and policy. Strangers
//! get in by an explicit flag alone.

use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use waypost_auth::{certificate::Lifetime, policy::Policy};

use super::trust_files::{TrustContents, TrustFiles};
use crate::{
    auth::{Gate, HostCheck, Trust, TrustCell, audit::AuditLog},
    clock::Clock,
    config::{Config, InvalidConfig},
};

/// The interval of warnings of a server that lets strangers in.
const HOUR: Duration = Duration::from_secs(60 * 60);

/// The settings that decide which policies may be in force.
#[derive(Debug, Clone, Copy)]
pub(super) struct AccessMode {
    listen: SocketAddr,
    has_tls: bool,
    insecure: bool,
}

/// The files that callers are judged by, with the contents that were judged at the start.
pub(super) struct JudgedFiles {
    pub(super) files: TrustFiles,
    pub(super) contents: TrustContents,
    pub(super) mode: AccessMode,
}

impl fmt::Debug for JudgedFiles {
    /// Omits the contents, which have a key.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("JudgedFiles").field("files", &self.files).finish_non_exhaustive()
    }
}

/// Reads the files that callers are judged by, checks that the whole configuration lets no stranger
/// in, and makes the gate.
///
/// Errors: all of the files, or the combination of settings.
pub(super) fn gate(
    config: &Config,
    clock: Clock,
) -> Result<(Gate, Option<JudgedFiles>), InvalidConfig> {
    let mode = AccessMode {
        listen: config.listen,
        has_tls: config.tls.is_some(),
        insecure: config.insecure,
    };
    let hosts = if config.listen.ip().is_loopback() && !mode.has_tls {
        HostCheck::Local
    } else {
        HostCheck::None
    };
    let Some(files) = TrustFiles::of(config) else {
        mode.check(None)?;
        return Ok((Gate::open(clock, hosts), None));
    };
    let contents = files.read();
    let (policy, tls) = files.judge(&contents, clock.wall())?;
    mode.check(Some(&policy))?;
    let trust = Arc::new(TrustCell::new(policy, tls, clock.wall()));
    Ok((Gate::new(clock, trust, hosts), Some(JudgedFiles { files, contents, mode })))
}

impl AccessMode {
    /// Checks that a policy lets no stranger in.
    pub(super) fn check(self, policy: Option<&Policy>) -> Result<(), InvalidConfig> {
        let is_enforced = policy.is_some_and(Policy::is_enforced);
        if self.listen.ip().is_loopback() || self.insecure || (self.has_tls && is_enforced) {
            return Ok(());
        }
        let reason = if self.has_tls {
            "a policy with `enforce = false` refuses no caller"
        } else {
            "without TLS, everyone on the way can read and change what callers send"
        };
        Err(InvalidConfig(vec![format!(
            "--listen {} is not loopback: {reason}. Make certificates and a policy by `waypost ca \
             init`, or listen on loopback behind a proxy, or let everyone in by --insecure",
            self.listen
        )]))
    }
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
                let let_through = gate.audit().map(AuditLog::let_through);
                warn!(let_through, "policy not enforced: requests that it refuses are let through");
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
