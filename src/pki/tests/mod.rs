//! Tests of the authority and its directory; certificates are read and verified by other libraries.

mod certificates;
mod directories;
mod handshakes;
mod malformed;

use std::time::{Duration, SystemTime};

use super::{CertificateAuthority, CertificateHolder, IssuedIdentity};
use crate::model::{Host, ServiceKey};

/// A moment in 2026, on a full second.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000)
}

fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 60 * 60)
}

fn authority() -> CertificateAuthority {
    CertificateAuthority::create("prod.example".parse().unwrap(), now()).unwrap()
}

fn host(text: &str) -> Host {
    Host::parse(text, 253).unwrap()
}

fn server() -> CertificateHolder {
    let hosts = ["localhost", "127.0.0.1", "::1", "registry.prod.example"].map(host);
    CertificateHolder::Server { hosts: hosts.into() }
}

fn orders() -> CertificateHolder {
    let (namespace, service) = ("shop".parse().unwrap(), "orders".parse().unwrap());
    CertificateHolder::Workload(ServiceKey { namespace, service })
}

fn issue(holder: &CertificateHolder) -> IssuedIdentity {
    authority().issue(holder, now()).unwrap()
}
