//! The fields of a certificate that decide: alternative names, lifetime, issuer.
//!
//! Read by `x509-parser`. `webpki`, which verifies the chain, skips alternative names that it can't
//! read, and a second name that is skipped would make an ambiguous certificate name somebody.
//!
//! Pure.

use x509_parser::{
    certificate::X509CertificateParser,
    extensions::SubjectAlternativeName,
    nom::Parser,
    oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME,
    prelude::{FromDer, X509Certificate},
};

use super::{lifetime::Lifetime, principal::principal_of};
use crate::policy::{Principal, Unauthenticated};

/// What is read of a certificate.
pub(crate) struct CertificateFields {
    pub(crate) lifetime: Lifetime,
    pub(crate) principal: Result<Principal, Unauthenticated>,
    /// The issuer's name, as bytes.
    pub(super) issuer: Box<[u8]>,
    /// Its own name, as bytes.
    pub(super) subject: Box<[u8]>,
}

impl CertificateFields {
    /// Reads a certificate in DER; `None` for one that is not well-formed.
    pub(crate) fn read(der: &[u8]) -> Option<Self> {
        let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
        let Ok((&[], certificate)) = parser.parse(der) else { return None };
        let validity = certificate.validity();
        let (begin, end) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        Some(Self {
            lifetime: Lifetime::of_unix(begin, end),
            principal: principal(&certificate),
            issuer: certificate.issuer().as_raw().into(),
            subject: certificate.subject().as_raw().into(),
        })
    }
}

fn principal(certificate: &X509Certificate<'_>) -> Result<Principal, Unauthenticated> {
    let nobody = Unauthenticated::CertificateNamesNobody;
    // An error for two extensions of this kind.
    let extension = certificate.get_extension_unique(&OID_X509_EXT_SUBJECT_ALT_NAME);
    let extension = extension.ok().flatten().ok_or(nobody)?;
    match SubjectAlternativeName::from_der(extension.value) {
        Ok((&[], names)) => principal_of(&names.general_names),
        _ => Err(nobody),
    }
}
