//! The certificate that a caller proved in its handshake.
//!
//! Pure. Invariant: it is made only of a chain that a handshake has verified, with the private key
//! proven.

use std::{fmt, time::SystemTime};

use ring::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;

use super::{fields::CertificateFields, lifetime::Lifetime};
use crate::policy::{Principal, Unauthenticated};

/// The certificate of a caller, with the chain that it sent.
pub struct PeerCertificate {
    /// The caller's own certificate first.
    chain: Box<[CertificateDer<'static>]>,
    sha256: [u8; 32],
    lifetime: Lifetime,
    principal: Result<Principal, Unauthenticated>,
    /// The id of the roots that the handshake has verified it with.
    verified_by: Option<[u8; 32]>,
}

impl PeerCertificate {
    /// Reads the chain of a handshake, the caller's certificate first. One that can't be read names
    /// nobody and has ended.
    #[must_use]
    pub fn read(chain: &[CertificateDer<'_>]) -> Self {
        let chain: Box<[_]> = chain.iter().map(|der| der.clone().into_owned()).collect();
        let leaf = chain.first().map(AsRef::as_ref).unwrap_or_default();
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, leaf).as_ref());
        let (lifetime, principal) = match CertificateFields::read(leaf) {
            Some(fields) => (lifetime_of(&fields, &chain[1..]), fields.principal),
            None => (Lifetime::NONE, Err(Unauthenticated::CertificateNamesNobody)),
        };
        Self { chain, sha256, lifetime, principal, verified_by: None }
    }

    /// Notes the roots that a handshake has verified it with.
    pub(crate) fn verified_by(mut self, roots: [u8; 32]) -> Self {
        self.verified_by = Some(roots);
        self
    }

    /// Returns whether its handshake has verified it with the roots of this id.
    pub(crate) fn is_verified_by(&self, roots: &[u8; 32]) -> bool {
        self.verified_by.as_ref() == Some(roots)
    }

    /// Returns the chain that the caller sent, its own certificate first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Returns the SHA-256 of the caller's own certificate.
    #[must_use]
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// Returns the end of the certificate, or of an intermediate one that it needs, whichever is
    /// earlier.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.lifetime.not_after
    }

    /// Returns the time in which the chain is valid.
    #[must_use]
    pub fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// Returns the principal that it names.
    ///
    /// # Errors
    /// [`Unauthenticated::CertificateNamesNobody`].
    pub fn principal(&self) -> Result<Principal, Unauthenticated> {
        self.principal.clone()
    }
}

impl fmt::Debug for PeerCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("PeerCertificate");
        debug.field("principal", &self.principal).field("lifetime", &self.lifetime);
        debug.finish_non_exhaustive()
    }
}

/// The lifetime of a certificate, cut to that of the intermediate ones that lead on from it. Of two
/// with one name, such as a cross-signed one, the later end counts.
fn lifetime_of(leaf: &CertificateFields, others: &[CertificateDer<'static>]) -> Lifetime {
    let mut lifetime = leaf.lifetime;
    let mut others: Vec<_> = others.iter().filter_map(|der| CertificateFields::read(der)).collect();
    let mut issuer = leaf.issuer.clone();
    loop {
        // Each certificate is taken once, so that a circle of issuers ends.
        let (issuers, rest): (Vec<_>, _) =
            others.into_iter().partition(|other| other.subject == issuer);
        let latest = issuers.into_iter().max_by_key(|issuer| issuer.lifetime.not_after);
        let Some(latest) = latest else { return lifetime };
        lifetime.not_after = lifetime.not_after.min(latest.lifetime.not_after);
        (issuer, others) = (latest.issuer, rest);
    }
}
