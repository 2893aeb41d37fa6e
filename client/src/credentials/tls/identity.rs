//! One version of a client's identity and of the CAs that it trusts. Never changes: new content of
//! the files makes another one.

use std::{fmt, sync::Arc, time::SystemTime};

use tokio_rustls::rustls::{
    self, ClientConfig, RootCertStore,
    client::Resumption,
    pki_types::{PrivateKeyDer, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
};

use super::{
    end::certificate_end,
    folder_error::FolderError,
    pem::{certificates, client_config, provider},
    server_id::ServerId,
};

/// The files of an identity, in PEM.
#[derive(Clone, Copy)]
pub(super) struct FolderFiles<'a> {
    pub(super) roots: &'a [u8],
    /// The certificate with those between it and a root, and its key. None: the client shows no
    /// certificate.
    pub(super) own: Option<(&'a [u8], &'a [u8])>,
}

/// The trusted CAs, and the certificate that the client shows.
pub(crate) struct TlsIdentity {
    roots: Arc<RootCertStore>,
    own: Option<OwnCertificate>,
}

/// A chain of certificates with the key of the first one.
struct OwnCertificate {
    key: Arc<CertifiedKey>,
    /// The first end of a certificate in the chain.
    ends_at: SystemTime,
}

impl TlsIdentity {
    /// Parses the files. The key must fit the certificate.
    pub(super) fn parse(files: FolderFiles<'_>) -> Result<Self, FolderError> {
        let bad = |reason: &dyn fmt::Display| FolderError::BadRoots { reason: reason.to_string() };
        let mut roots = RootCertStore::empty();
        for root in certificates(files.roots, bad)? {
            roots.add(root).map_err(|error| bad(&error))?;
        }
        let own = files.own.map(|(chain, key)| OwnCertificate::parse(chain, key)).transpose()?;
        Ok(Self { roots: Arc::new(roots), own })
    }

    /// The end of the client's certificate; `None` without one.
    pub(crate) fn ends_at(&self) -> Option<SystemTime> {
        self.own.as_ref().map(|own| own.ends_at)
    }

    /// The settings of connections. Servers prove the name that they are called by, or the id.
    pub(crate) fn config(&self, server_id: Option<&ServerId>) -> ClientConfig {
        let builder = client_config().expect("ring has TLS 1.2 and 1.3");
        let roots = Arc::clone(&self.roots);
        let builder = match server_id {
            None => builder.with_root_certificates(roots),
            Some(id) => builder.dangerous().with_custom_certificate_verifier(id.verifier(roots)),
        };
        let mut config = match &self.own {
            None => builder.with_no_client_auth(),
            Some(own) => builder
                .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&own.key)))),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would carry the identity of the one before.
        config.resumption = Resumption::disabled();
        config
    }
}

impl OwnCertificate {
    fn parse(chain: &[u8], key: &[u8]) -> Result<Self, FolderError> {
        let bad =
            |reason: &dyn fmt::Display| FolderError::BadIdentity { reason: reason.to_string() };
        let chain = certificates(chain, bad)?;
        let ends: Option<Vec<_>> = chain.iter().map(|der| certificate_end(der)).collect();
        let ends_at = ends.and_then(|ends| ends.into_iter().min());
        let ends_at = ends_at.ok_or_else(|| bad(&"tls.crt has a malformed certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| bad(&error))?;
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                bad(&"the key in tls.key does not fit the first certificate in tls.crt")
            }
            other => bad(&other),
        })?;
        Ok(Self { key: Arc::new(key), ends_at })
    }
}

impl fmt::Debug for TlsIdentity {
    /// Leaves out the key.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("TlsIdentity");
        debug.field("ends_at", &self.ends_at()).finish_non_exhaustive()
    }
}
