//! A certificate authority for tests: identity folders, and TLS from both sides.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::SystemTime};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
    SanType,
};
use tempfile::TempDir;
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
        server::WebPkiClientVerifier,
    },
};

/// An authority.
#[derive(Debug)]
pub struct TestAuthority(CertifiedIssuer<'static, KeyPair>);

impl TestAuthority {
    /// Makes an authority with a new key.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, key()).expect("a certificate"))
    }

    /// Returns its own certificate, as `ca.crt` has it.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Issues a certificate for a name: a URI, or a host.
    #[must_use]
    pub fn issue(&self, name: &str) -> (Certificate, KeyPair) {
        self.issue_with(name, |_| {})
    }

    /// Issues a certificate that has ended.
    #[must_use]
    pub fn issue_expired(&self, name: &str) -> (Certificate, KeyPair) {
        let day = |day: u64| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(day * 86_400);
        self.issue_with(name, |params| {
            (params.not_before, params.not_after) = (day(10_000).into(), day(10_001).into());
        })
    }

    /// Issues a certificate that ends at a time, to the second.
    #[must_use]
    pub fn issue_until(&self, name: &str, end: SystemTime) -> (Certificate, KeyPair) {
        self.issue_with(name, |params| params.not_after = end.into())
    }

    /// Issues a certificate that has a common name alone, which names no caller.
    #[must_use]
    pub fn issue_nameless(&self) -> (Certificate, KeyPair) {
        self.issue_with("spiffe://test/none", |params| params.subject_alt_names.clear())
    }

    fn issue_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (Certificate, KeyPair) {
        let mut params = CertificateParams::default();
        if name.contains("://") {
            params.subject_alt_names = vec![SanType::URI(name.try_into().expect("ASCII"))];
        } else {
            params = CertificateParams::new([name.to_owned()]).expect("a name");
        }
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let key = key();
        (params.signed_by(&key, &self.0).expect("a certificate"), key)
    }

    /// Makes an identity folder for a name.
    #[must_use]
    pub fn folder(&self, name: &str) -> TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        self.write_folder(directory.path(), &self.issue(name));
        directory
    }

    /// Makes an identity folder with this authority's certificate alone.
    #[must_use]
    pub fn folder_of_roots(&self) -> TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        write(directory.path(), "ca.crt", &self.pem());
        directory
    }

    /// Writes the files of an identity folder.
    pub fn write_folder(&self, directory: &Path, identity: &(Certificate, KeyPair)) {
        let (certificate, key) = identity;
        write(directory, "tls.crt", &certificate.pem());
        write(directory, "tls.key", &key.serialize_pem());
        write(directory, "ca.crt", &self.pem());
    }

    /// Makes the TLS of a caller that trusts this authority, with a certificate or without one.
    #[must_use]
    pub fn connector(&self, identity: Option<&(Certificate, KeyPair)>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a root");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
                builder.with_client_auth_cert(vec![certificate.der().clone()], key).expect("a key")
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

/// Makes the TLS of a server. It demands certificates of `callers` where there are any, and asks
/// for none otherwise.
#[must_use]
pub fn server_tls(identity: &(Certificate, KeyPair), callers: &[&TestAuthority]) -> TlsAcceptor {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = if callers.is_empty() {
        builder.with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        for authority in callers {
            roots.add(authority.0.der().clone()).expect("a root");
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build().expect("roots"))
    };
    let (certificate, key) = identity;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = builder.with_single_cert(vec![certificate.der().clone()], key);
    let mut config = config.expect("a key that fits");
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

fn write(directory: &Path, name: &str, text: &str) {
    let path = directory.join(name);
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}
