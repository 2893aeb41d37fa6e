//! The certificates of authorities that callers are verified with, in the handshake and later.
//!
//! Pure: the caller passes the time in.

use std::{fmt, sync::Arc, time::SystemTime};

use ring::digest::{Context, SHA256};
use rustls::{
    CertificateError, Error, RootCertStore,
    server::{VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::provider::provider;
use crate::{certificate::PeerCertificate, policy::Unauthenticated};

/// The roots that verify callers. Cheap to clone.
#[derive(Clone)]
pub struct ClientRoots {
    demanding: Arc<dyn ClientCertVerifier>,
    requesting: Arc<dyn ClientCertVerifier>,
    /// The SHA-256 of all roots.
    id: [u8; 32],
}

impl ClientRoots {
    pub(super) fn new(roots: &[CertificateDer<'_>]) -> Result<Self, VerifierBuilderError> {
        let (mut store, mut id) = (RootCertStore::empty(), Context::new(&SHA256));
        for root in roots {
            // One that is no root is reported by the reader of the folder.
            let _added = store.add(root.clone().into_owned());
            id.update(&root.len().to_be_bytes());
            id.update(root);
        }
        let store = Arc::new(store);
        let builder =
            || WebPkiClientVerifier::builder_with_provider(Arc::clone(&store), provider());
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(id.finish().as_ref());
        Ok(Self {
            demanding: builder().build()?,
            requesting: builder().allow_unauthenticated().build()?,
            id: sha256,
        })
    }

    pub(super) fn demanding(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.demanding)
    }

    pub(super) fn requesting(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.requesting)
    }

    /// Reads the chain of a handshake that these roots have verified.
    #[must_use]
    pub fn accepted(&self, chain: &[CertificateDer<'_>]) -> PeerCertificate {
        PeerCertificate::read(chain).verified_by(self.id)
    }

    /// Verifies the chain of a standing session again. Of one that the same roots have verified,
    /// only the lifetime can have changed.
    ///
    /// # Errors
    /// [`Unauthenticated::CredentialsExpired`] and [`Unauthenticated::CertificateNotTrusted`].
    pub fn verify(
        &self,
        certificate: &PeerCertificate,
        now: SystemTime,
    ) -> Result<(), Unauthenticated> {
        if certificate.lifetime().is_over(now) {
            return Err(Unauthenticated::CredentialsExpired);
        }
        if certificate.is_verified_by(&self.id) {
            return Ok(());
        }
        let untrusted = Unauthenticated::CertificateNotTrusted;
        let (leaf, intermediates) = certificate.chain().split_first().ok_or(untrusted)?;
        let since = now.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| untrusted)?;
        let now = UnixTime::since_unix_epoch(since);
        match self.demanding.verify_client_cert(leaf, intermediates, now) {
            Ok(_) => Ok(()),
            Err(Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) => Err(Unauthenticated::CredentialsExpired),
            Err(_) => Err(untrusted),
        }
    }
}

impl PartialEq for ClientRoots {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for ClientRoots {}

impl fmt::Debug for ClientRoots {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ClientRoots").finish_non_exhaustive()
    }
}
