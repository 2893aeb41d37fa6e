//! A certificate's names, validity and key, for display. Verifies nothing.
//!
//! Pure. Invariant: no bytes make it panic.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use rustls_pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, parse_x509_certificate, time::ASN1Time,
};

/// The content of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateDetails {
    /// The URIs among its names: one SPIFFE ID, in certificates of ours.
    pub uris: Vec<String>,
    /// The addresses and DNS names for which it is valid.
    pub hosts: Vec<String>,
    /// The start of its validity.
    pub not_before: SystemTime,
    /// The end of its validity.
    pub not_after: SystemTime,
    /// The SHA-256 of the certificate, by which a policy revokes it.
    pub sha256: [u8; 32],
    /// Whether it may sign others.
    pub(super) is_authority: bool,
    /// The public key with its algorithm, encoded.
    pub(super) public_key: Vec<u8>,
    /// The whole certificate.
    pub(super) der: CertificateDer<'static>,
}

impl CertificateDetails {
    /// Reads a certificate. `None` if it is malformed.
    #[must_use]
    pub fn parse(der: &[u8]) -> Option<Self> {
        let Ok((&[], certificate)) = parse_x509_certificate(der) else { return None };
        let (uris, hosts) = names(&certificate)?;
        let constraints = certificate.basic_constraints().ok()?;
        Some(Self {
            uris,
            hosts,
            not_before: time(certificate.validity().not_before)?,
            not_after: time(certificate.validity().not_after)?,
            sha256: Sha256::digest(der).into(),
            is_authority: constraints.is_some_and(|constraints| constraints.value.ca),
            public_key: certificate.public_key().raw.to_owned(),
            der: CertificateDer::from(der.to_owned()),
        })
    }

    /// Reads all certificates of a file in PEM. `None` if one is malformed, or there is none.
    #[must_use]
    pub fn parse_pem(pem: &[u8]) -> Option<Vec<Self>> {
        let read = |found: Result<CertificateDer<'_>, _>| Self::parse(&found.ok()?);
        let found: Vec<Self> =
            CertificateDer::pem_slice_iter(pem).map(read).collect::<Option<_>>()?;
        (!found.is_empty()).then_some(found)
    }
}

/// Returns the URIs, and the hosts.
fn names(certificate: &X509Certificate<'_>) -> Option<(Vec<String>, Vec<String>)> {
    let (mut uris, mut hosts) = (Vec::new(), Vec::new());
    let names = certificate.subject_alternative_name().ok()?;
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::URI(uri) => uris.push((*uri).to_owned()),
            GeneralName::DNSName(name) => hosts.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => hosts.push(address(bytes)?.to_string()),
            _ => {}
        }
    }
    Some((uris, hosts))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn time(time: ASN1Time) -> Option<SystemTime> {
    let since_epoch = Duration::from_secs(u64::try_from(time.timestamp()).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(since_epoch)
}
