//! Identity folders, valid and not, and callers' chains against their roots.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, SystemTime},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::ProtocolVersion;

use super::{ClientAuth, IdentityFolder};
use crate::{certificate::PeerCertificate, policy::Unauthenticated};

const DAY: Duration = Duration::from_secs(86_400);

fn day(day: u32) -> SystemTime {
    SystemTime::UNIX_EPOCH + DAY * day
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str, end: u32) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) = (day(1).into(), day(end).into());
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Returns a certificate that is valid until a day, and its key.
    fn issue(&self, end: u32) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI("spiffe://d/a".try_into().unwrap())];
        (params.not_before, params.not_after) = (day(5).into(), day(end).into());
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    /// Writes an identity folder.
    fn folder(&self) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = self.issue(100);
        write(directory.path(), "tls.crt", &certificate.pem());
        write(directory.path(), "tls.key", &key.serialize_pem());
        write(directory.path(), "ca.crt", &self.0.pem());
        directory
    }
}

fn write(directory: &Path, name: &str, text: &str) {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Returns the errors of a folder on day 10, without its path.
fn errors(directory: &Path) -> Vec<String> {
    let errors = IdentityFolder::read(directory, day(10)).expect_err("errors");
    let folder = format!("{}/", directory.display());
    errors.iter().map(|error| error.to_string().replace(&folder, "")).collect()
}

#[test]
fn valid_folder_has_its_lifetimes_and_a_configuration_without_resumption() {
    let authority = Authority::new("a", 300);
    let directory = authority.folder();
    let old = Authority::new("old", 9);
    let both = old.0.pem() + &authority.0.pem();
    write(directory.path(), "ca.crt", &both);
    let folder = IdentityFolder::read(directory.path(), day(10)).unwrap();
    assert_eq!(folder.lifetime().not_after, day(100));
    assert_eq!(folder.authorities().len(), 1, "the one that has ended is not trusted");
    assert_eq!(folder.authority_lifetimes()[0].not_after, day(300));
    assert!(!folder.key_is_exposed());
    for client_auth in [ClientAuth::Demanded, ClientAuth::Requested] {
        let config = folder.server_config(client_auth);
        assert_eq!(config.alpn_protocols, [&b"h2"[..], b"http/1.1"]);
        assert_eq!((config.send_tls13_tickets, config.max_early_data_size), (0, 0));
        assert!(!config.session_storage.can_cache() && !config.ticketer.enabled());
        assert!(!config.enable_secret_extraction && !config.key_log.will_log("CLIENT_RANDOM"));
    }
    for mode in [0o640, 0o604] {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(directory.path().join("tls.key"), mode).unwrap();
    }
    let folder = IdentityFolder::read(directory.path(), day(10)).unwrap();
    assert!(folder.key_is_exposed());
    assert!(!format!("{folder:?}").contains("key"), "{folder:?}");
}

#[test]
fn all_errors_of_a_folder_are_reported() {
    let (authority, other) = (Authority::new("a", 300), Authority::new("b", 300));
    let (expired, late) = (authority.issue(9).0.pem(), authority.issue(100).0.pem());
    let other_key = KeyPair::generate().unwrap().serialize_pem();
    let cut = "-----BEGIN CERTIFICATE-----\nMIIB\n".to_owned();
    let broken = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".to_owned();
    let encrypted = other_key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let nonsense = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n".to_owned();
    let long = "x".repeat((1 << 20) + 1);
    let two = other_key.repeat(2);
    for (file, text, expected) in [
        ("tls.crt", String::new(), "tls.crt: has no certificate"),
        ("tls.crt", "nothing".into(), "tls.crt: has no certificate"),
        ("tls.crt", cut, "tls.crt: is not PEM: a section does not end"),
        ("tls.crt", broken.clone(), "tls.crt: certificate 1 cannot be used: it is not well-formed"),
        (
            "tls.crt",
            late.clone() + &broken,
            "tls.crt: certificate 2 cannot be used: it is not well-formed",
        ),
        ("tls.crt", expired, "tls.crt: the certificate has expired at 1970-01-10T00:00:00Z"),
        ("tls.crt", late, "tls.key: is not the key of the first certificate of tls.crt"),
        ("tls.crt", long, "tls.crt: is longer than 1048576 bytes"),
        ("tls.key", String::new(), "tls.key: has no private key that is not encrypted"),
        ("tls.key", encrypted, "tls.key: has no private key that is not encrypted"),
        ("tls.key", two, "tls.key: has 2 private keys, must have one"),
        ("tls.key", other_key, "tls.key: is not the key of the first certificate of tls.crt"),
        ("tls.key", nonsense, "tls.key: the private key cannot be used: "),
        ("ca.crt", String::new(), "ca.crt: has no certificate"),
        (
            "ca.crt",
            other.0.pem() + &broken,
            "ca.crt: certificate 2 cannot be used: it is not well-formed",
        ),
        (
            "ca.crt",
            Authority::new("c", 9).0.pem(),
            "ca.crt: the certificate has expired at 1970-01-10T00:00:00Z",
        ),
    ] {
        let directory = authority.folder();
        write(directory.path(), file, &text);
        let found = errors(directory.path());
        assert!(found.len() == 1 && found[0].starts_with(expected), "{file}: {found:?}");
    }
    let directory = authority.folder();
    let early = IdentityFolder::read(directory.path(), day(4)).unwrap_err();
    assert!(early[0].to_string().contains("not valid before 1970-01-06T00:00:00Z"), "{early:?}");
    fs::remove_file(directory.path().join("ca.crt")).unwrap();
    fs::remove_file(directory.path().join("tls.key")).unwrap();
    let missing = errors(directory.path());
    assert!(missing[0].starts_with("tls.key: cannot be read: "), "{missing:?}");
    assert!(missing[1].starts_with("ca.crt: cannot be read: "), "{missing:?}");
    for file in ["tls.crt", "tls.key", "ca.crt"] {
        write(directory.path(), file, "nothing");
    }
    assert_eq!(errors(directory.path()).len(), 3);
}

#[test]
fn standing_session_is_verified_again() {
    let (authority, other) = (Authority::new("a", 300), Authority::new("b", 300));
    let folder = |authority: &Authority| {
        let directory = authority.folder();
        IdentityFolder::read(directory.path(), day(10)).unwrap()
    };
    let (ours, theirs) = (folder(&authority), folder(&other));
    let chain = [authority.issue(50).0.der().clone()];
    for certificate in [PeerCertificate::read(&chain), ours.roots().accepted(&chain)] {
        assert_eq!(ours.roots().verify(&certificate, day(10)), Ok(()));
        assert_eq!(ours.roots().verify(&certificate, day(50)), Ok(()));
        let expired = Err(Unauthenticated::CredentialsExpired);
        assert_eq!(ours.roots().verify(&certificate, day(51)), expired);
        let untrusted = Err(Unauthenticated::CertificateNotTrusted);
        assert_eq!(theirs.roots().verify(&certificate, day(10)), untrusted);
        assert_eq!(theirs.roots().verify(&certificate, day(51)), expired);
    }
    // Not verified by a handshake, and not valid yet.
    let untrusted = Err(Unauthenticated::CertificateNotTrusted);
    assert_eq!(ours.roots().verify(&PeerCertificate::read(&chain), day(4)), untrusted);
    assert_eq!(ours.roots().verify(&PeerCertificate::read(&[]), day(0)), untrusted);
    assert!(ours.roots() == ours.roots() && ours.roots() != theirs.roots());
}

#[test]
fn provider_has_both_versions() {
    let suites = super::provider().cipher_suites.clone();
    for version in [ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3] {
        assert!(suites.iter().any(|suite| suite.version().version == version), "{version:?}");
    }
}
