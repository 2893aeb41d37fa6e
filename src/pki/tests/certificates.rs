//! The content of certificates as other libraries read it, and their chains as rustls judges them.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    CertificateError, Error, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::ring,
    server::WebPkiClientVerifier,
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256},
    parse_x509_certificate,
};

use super::{authority, days, issue, now, orders, server};
use crate::pki::{
    CertificateAuthority, CertificateDetails, CertificateHolder, IssuedIdentity, PkiError,
};

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn roots(pem: &str) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(der(pem)).unwrap();
    Arc::new(roots)
}

fn unix(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap())
}

/// Judges a certificate as a client that connects to `name`.
fn judge_server(files: &IssuedIdentity, name: &str, at: SystemTime) -> Result<(), Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(&files.authorities), provider);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let certificate = der(&files.certificate);
    let verifier = verifier.build().unwrap();
    verifier.verify_server_cert(&certificate, &[], &name, &[], unix(at)).map(|_| ())
}

/// Judges a certificate as a server that trusts `authorities`.
fn judge_client(files: &IssuedIdentity, authorities: &str, at: SystemTime) -> Result<(), Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(authorities), provider);
    let certificate = der(&files.certificate);
    verifier.build().unwrap().verify_client_cert(&certificate, &[], unix(at)).map(|_| ())
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => (*uri).to_owned(),
        GeneralName::DNSName(name) => format!("DNS {name}"),
        GeneralName::IPAddress(bytes) => format!("IP {bytes:?}"),
        other => panic!("{other}"),
    };
    names.value.general_names.iter().map(name).collect()
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

#[test]
fn workload_certificate_has_one_name_and_both_uses() {
    let files = issue(&orders());
    let der = der(&files.certificate);
    let (rest, certificate) = parse_x509_certificate(&der).unwrap();
    assert!(rest.is_empty());
    assert_eq!(names(&certificate), ["spiffe://prod.example/ns/shop/sa/orders"]);
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && usage.server_auth && !usage.any);
    let usage = certificate.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.digital_signature() && !usage.value.key_cert_sign());
    let constraints = certificate.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && !constraints.value.ca);
    assert_eq!(certificate.signature_algorithm.algorithm, OID_SIG_ECDSA_WITH_SHA256);
    let key = &certificate.public_key().algorithm;
    assert_eq!(key.algorithm, OID_KEY_TYPE_EC_PUBLIC_KEY);
    assert_eq!(key.parameters.as_ref().unwrap().as_oid().unwrap(), OID_EC_P256);
    // No program takes a common name with a space for a host.
    assert_eq!(certificate.subject().to_string(), "CN=Waypost workload");
    let validity = certificate.validity();
    assert_eq!(validity.not_before.timestamp(), seconds(now() - Duration::from_secs(3600)));
    assert_eq!(validity.not_after.timestamp(), seconds(now() + days(90)));
}

#[test]
fn authority_certificate_signs_and_does_nothing_else() {
    let authority = authority();
    let der = der(authority.certificates());
    let (_, certificate) = parse_x509_certificate(&der).unwrap();
    assert_eq!(names(&certificate), ["spiffe://prod.example"]);
    let constraints = certificate.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    let usage = certificate.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.key_cert_sign() && !usage.value.digital_signature());
    assert_eq!(certificate.validity().not_after.timestamp(), seconds(now() + days(3652)));
    assert!(certificate.extended_key_usage().unwrap().is_none());
}

#[test]
fn issued_certificate_names_the_authority_by_name_and_key() {
    let files = issue(&orders());
    let (issued, own) = (der(&files.certificate), der(&files.authorities));
    let (_, issued) = parse_x509_certificate(&issued).unwrap();
    let (_, own) = parse_x509_certificate(&own).unwrap();
    assert_eq!(issued.issuer(), own.subject());
    let key_id = |certificate: &X509Certificate<'_>| {
        certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        })
    };
    let authority_id =
        issued.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                Some(id.key_identifier.as_ref()?.0.to_vec())
            }
            _ => None,
        });
    assert!(key_id(&own).is_some() && authority_id == key_id(&own));
    assert!(key_id(&issued).is_some() && key_id(&issued) != key_id(&own));
}

#[test]
fn serial_numbers_and_keys_are_never_repeated() {
    let authority = authority();
    let issued: Vec<_> = (0..50).map(|_| authority.issue(&orders(), now()).unwrap()).collect();
    let serials: BTreeSet<_> = issued
        .iter()
        .map(|files| {
            parse_x509_certificate(&der(&files.certificate)).unwrap().1.raw_serial().to_vec()
        })
        .collect();
    assert_eq!(serials.len(), 50);
    assert!(serials.iter().all(|serial| serial.len() == 16 && serial[0] < 0x80 && serial[0] > 0));
    assert_eq!(issued.iter().map(|files| &files.key).collect::<BTreeSet<_>>().len(), 50);
}

#[test]
fn clients_accept_the_server_under_its_hosts_alone() {
    let files = issue(&server());
    for name in ["localhost", "127.0.0.1", "::1", "registry.prod.example"] {
        judge_server(&files, name, now()).unwrap();
    }
    for name in ["other.example", "127.0.0.2", "prod.example", "a.localhost"] {
        judge_server(&files, name, now()).unwrap_err();
    }
    let der = der(&files.certificate);
    let (_, certificate) = parse_x509_certificate(&der).unwrap();
    assert_eq!(names(&certificate)[0], "spiffe://prod.example/server");
}

#[test]
fn none_but_the_server_passes_for_a_host() {
    let key = |service: &str| crate::model::ServiceKey {
        namespace: "default".parse().unwrap(),
        service: service.parse().unwrap(),
    };
    for service in ["localhost", "registry.prod.example"] {
        let holder = CertificateHolder::Workload(key(service));
        judge_server(&issue(&holder), service, now()).unwrap_err();
        let holder = CertificateHolder::Operator(service.parse().unwrap());
        judge_server(&issue(&holder), service, now()).unwrap_err();
    }
}

#[test]
fn servers_accept_clients_of_their_authority_while_valid() {
    let files = issue(&orders());
    for at in [now() - Duration::from_secs(3599), now(), now() + days(90)] {
        judge_client(&files, &files.authorities, at).unwrap();
    }
    let late = judge_client(&files, &files.authorities, now() + days(91)).unwrap_err();
    let expired = matches!(
        late,
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. }
        )
    );
    assert!(expired, "{late}");
    judge_client(&files, &files.authorities, now() - days(1)).unwrap_err();
    let other = authority();
    let unknown = judge_client(&files, other.certificates(), now()).unwrap_err();
    assert_eq!(unknown, Error::InvalidCertificate(CertificateError::UnknownIssuer));
}

#[test]
fn keys_fit_their_certificates() {
    for holder in [orders(), server(), CertificateHolder::Operator("admin".parse().unwrap())] {
        let files = issue(&holder);
        let key = PrivateKeyDer::from_pem_slice(files.key.as_bytes()).unwrap();
        let key = ring::sign::any_supported_type(&key).unwrap();
        CertifiedKey::new(vec![der(&files.certificate)], key).keys_match().unwrap();
    }
}

#[test]
fn certificate_ends_with_the_authority_at_the_latest() {
    let authority = authority();
    let last = now() + CertificateAuthority::VALIDITY - days(10);
    let files = authority.issue(&orders(), last).unwrap();
    let details = CertificateDetails::parse(&der(&files.certificate)).unwrap();
    assert_eq!(details.not_after, last + days(10));
    let after = authority.issue(&orders(), last + days(10)).err();
    assert!(matches!(after, Some(PkiError::AuthorityExpired)), "{after:?}");
}

#[test]
fn clock_out_of_range_is_an_error() {
    let create = |at| CertificateAuthority::create("a".parse().unwrap(), at).err();
    let year_9999 = SystemTime::UNIX_EPOCH + days(2_932_000);
    for at in [SystemTime::UNIX_EPOCH, year_9999] {
        let error = create(at);
        assert!(matches!(error, Some(PkiError::Clock)), "{error:?}");
    }
}

#[test]
fn details_have_the_names_and_the_validity() {
    let files = issue(&server());
    let details = CertificateDetails::parse(&der(&files.certificate)).unwrap();
    assert_eq!(details.hosts, ["localhost", "127.0.0.1", "::1", "registry.prod.example"]);
}
