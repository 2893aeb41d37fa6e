//! The SPIFFE ID that the registry's certificate must have instead of a host name. The chain is
//! verified as always; only the name differs.

use std::{fmt, sync::Arc};

use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use webpki::EndEntityCert;

use super::pem;

/// The most bytes of a SPIFFE ID.
const BYTES_MAX: usize = 2_048;

/// A SPIFFE ID, `spiffe://DOMAIN/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerId(Arc<str>);

/// The text is not a SPIFFE ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidServerId {
    #[error("it does not start with spiffe://")]
    Scheme,
    #[error("it has more than {BYTES_MAX} bytes")]
    TooLong,
    #[error("its trust domain is empty, or not of a-z, 0-9, '.', '_' and '-'")]
    Domain,
    #[error(
        "its path is empty, has an empty segment, '.' or '..', or a character other than \
             A-Z, a-z, 0-9, '.', '_' and '-'"
    )]
    Path,
}

impl ServerId {
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidServerId> {
        let rest = text.strip_prefix("spiffe://").ok_or(InvalidServerId::Scheme)?;
        if text.len() > BYTES_MAX {
            return Err(InvalidServerId::TooLong);
        }
        let (domain, path) = rest.split_once('/').ok_or(InvalidServerId::Path)?;
        let is_plain = |byte: u8| matches!(byte, b'0'..=b'9' | b'.' | b'_' | b'-');
        let of_domain = |byte: u8| byte.is_ascii_lowercase() || is_plain(byte);
        if domain.is_empty() || !domain.bytes().all(of_domain) {
            return Err(InvalidServerId::Domain);
        }
        let of_path = |byte: u8| byte.is_ascii_alphabetic() || is_plain(byte);
        let is_segment =
            |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(of_path);
        if !path.split('/').all(is_segment) {
            return Err(InvalidServerId::Path);
        }
        Ok(Self(text.into()))
    }

    /// Creates the verifier of servers with this id, signed by one of `roots`.
    pub(super) fn verifier(&self, roots: Arc<RootCertStore>) -> Arc<dyn ServerCertVerifier> {
        Arc::new(ServerIdVerifier { id: self.clone(), roots, provider: pem::provider() })
    }

    /// Returns whether the certificate has exactly one URI, which is this id.
    fn is_of(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok(certificate) = EndEntityCert::try_from(certificate) else { return false };
        let mut uris = certificate.valid_uri_names();
        uris.next() == Some(&*self.0) && uris.next().is_none()
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[derive(Debug)]
struct ServerIdVerifier {
    id: ServerId,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ServerIdVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        if self.id.is_of(end_entity) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::NotValidForName.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    #[test]
    fn only_spiffe_ids_are_accepted() {
        for id in ["spiffe://prod.example/waypost", "spiffe://a-b_c.1/ns/Shop/sa/registry.v2"] {
            assert_eq!(ServerId::parse(id).unwrap().to_string(), id);
        }
        for (id, error) in [
            ("", InvalidServerId::Scheme),
            ("https://prod.example/waypost", InvalidServerId::Scheme),
            ("SPIFFE://prod.example/waypost", InvalidServerId::Scheme),
            ("spiffe:///waypost", InvalidServerId::Domain),
            ("spiffe://Prod.example/waypost", InvalidServerId::Domain),
            ("spiffe://a:1/waypost", InvalidServerId::Domain),
            ("spiffe://prod.example", InvalidServerId::Path),
            ("spiffe://prod.example/", InvalidServerId::Path),
            ("spiffe://prod.example/a//b", InvalidServerId::Path),
            ("spiffe://prod.example/a/../b", InvalidServerId::Path),
            ("spiffe://prod.example/a%2fb", InvalidServerId::Path),
            ("spiffe://prod.example/a?b", InvalidServerId::Path),
        ] {
            assert_eq!(ServerId::parse(id), Err(error), "{id}");
        }
        let long = format!("spiffe://a/{}", "b".repeat(BYTES_MAX));
        assert_eq!(ServerId::parse(&long), Err(InvalidServerId::TooLong));
    }

    #[test]
    fn a_certificate_with_several_ids_has_none() {
        let id = "spiffe://prod.example/waypost";
        for (uris, expected) in [
            (&[id][..], true),
            (&[], false),
            (&["spiffe://prod.example/waypost2"], false),
            (&[id, "spiffe://prod.example/other"], false),
            (&["spiffe://prod.example/other", id], false),
        ] {
            let mut params = CertificateParams::default();
            let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
            params.subject_alt_names = uris.collect();
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            assert_eq!(ServerId::parse(id).unwrap().is_of(certificate.der()), expected);
        }
    }
}
