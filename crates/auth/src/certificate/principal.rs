//! The principal that the alternative names of a certificate give.
//!
//! Pure. Invariant: a certificate that could be read in two ways names nobody. The common name is
//! not read.

use rustls_pki_types::DnsName;
use x509_parser::extensions::GeneralName;

use crate::policy::{Principal, Unauthenticated};

/// The tag of a URI among alternative names (RFC 5280).
const URI_TAG: u32 = 6;
/// The greatest length of a SPIFFE ID, in bytes.
const SPIFFE_ID_BYTES_MAX: usize = 2048;
/// The greatest length of a trust domain, in bytes.
const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// Returns `spiffe://…` for exactly one URI that is a well-formed SPIFFE ID; `dns/NAME` for no URI
/// and exactly one DNS name, which is no wildcard. Names of other kinds do not count.
///
/// # Errors
/// [`Unauthenticated::CertificateNamesNobody`].
pub(super) fn principal_of(names: &[GeneralName<'_>]) -> Result<Principal, Unauthenticated> {
    let is_uri = |name: &&GeneralName<'_>| match name {
        GeneralName::URI(_) => true,
        GeneralName::Invalid(tag, _) => tag.0 == URI_TAG,
        _ => false,
    };
    let mut uris = names.iter().filter(is_uri);
    let text = match (uris.next(), uris.next()) {
        (Some(GeneralName::URI(uri)), None) if is_spiffe_id(uri) => Some((*uri).to_owned()),
        (None, None) => single_dns_name(names).map(|name| format!("dns/{name}")),
        _ => None,
    };
    let principal = text.and_then(|text| Principal::parse(&text).ok());
    principal.ok_or(Unauthenticated::CertificateNamesNobody)
}

fn single_dns_name(names: &[GeneralName<'_>]) -> Option<String> {
    // An unreadable name may be a second one.
    if names.iter().any(|name| matches!(name, GeneralName::Invalid(..))) {
        return None;
    }
    let mut found = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    });
    let (name, None) = (found.next()?, found.next()) else { return None };
    // A wildcard is no `DnsName`; a last dot would give one host two names.
    let is_host = DnsName::try_from(name).is_ok() && !name.ends_with('.');
    is_host.then(|| name.to_ascii_lowercase())
}

/// Returns whether the text is a SPIFFE ID of a workload: a trust domain in lower case, and a path
/// without empty, `.`, `..` or encoded segments.
fn is_spiffe_id(uri: &str) -> bool {
    let Some((domain, path)) = uri.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/'))
    else {
        return false;
    };
    let in_domain = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    let in_path = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    uri.len() <= SPIFFE_ID_BYTES_MAX
        && (1..=TRUST_DOMAIN_BYTES_MAX).contains(&domain.len())
        && domain.bytes().all(in_domain)
        && path
            .split('/')
            .all(|segment| !matches!(segment, "" | "." | "..") && segment.bytes().all(in_path))
}
