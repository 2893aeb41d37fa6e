//! Certificate authorities, and the certificates and TLS settings that they make.

use std::{fs, path::Path, sync::Arc, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    SanType,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
};

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub struct Vouched {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // A name of its own: certificates name who signed them.
        let name = format!("authority {:08x}", fastrand::u32(..));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a DNS name, an IP address or a SPIFFE ID.
    pub fn vouch(&self, name: &str) -> Vouched {
        self.vouch_for([name], |_| {})
    }

    /// A certificate that has ended.
    pub fn vouch_expired(&self, name: &str) -> Vouched {
        self.vouch_for([name], |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1))
    }

    /// A certificate that ends soon.
    pub fn vouch_briefly(&self, name: &str, left: Duration) -> Vouched {
        self.vouch_for([name], |params| {
            params.not_after = (std::time::SystemTime::now() + left).into();
        })
    }

    pub fn vouch_for<const N: usize>(
        &self,
        names: [&str; N],
        alter: impl FnOnce(&mut CertificateParams),
    ) -> Vouched {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        let names = names.map(|name| match (name.parse(), name.contains("://")) {
            (Ok(address), _) => SanType::IpAddress(address),
            (_, true) => SanType::URI(name.try_into().unwrap()),
            (_, false) => SanType::DnsName(name.try_into().unwrap()),
        });
        params.subject_alt_names = names.into();
        alter(&mut params);
        let certificate = params.signed_by(&key, &self.0).unwrap().pem();
        Vouched { certificate, key: key.serialize_pem() }
    }

    /// Writes an identity folder whose certificate is of this authority.
    pub fn write_folder(&self, folder: &Path, own: Option<&Vouched>) {
        fs::write(folder.join("ca.crt"), self.pem()).unwrap();
        if let Some(own) = own {
            fs::write(folder.join("tls.crt"), &own.certificate).unwrap();
            fs::write(folder.join("tls.key"), &own.key).unwrap();
        }
    }
}

/// A server with a certificate. Asks for a client certificate of one of `clients`, if there are
/// any, and refuses clients without one.
pub fn acceptor(server: &Vouched, clients: &[&Authority]) -> TlsAcceptor {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = if clients.is_empty() {
        builder.with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        for authority in clients {
            roots.add(authority.0.der().clone()).unwrap();
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build().unwrap())
    };
    let certificate = CertificateDer::from_pem_slice(server.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(server.key.as_bytes()).unwrap();
    let mut config = builder.with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}
