//! The directory of an authority: its files, their modes, and what never happens to them.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use waypost_auth::{certificate::PeerCertificate, tls::IdentityFolder};

use super::{days, host, now, orders};
use crate::pki::{
    AUTHORITIES, CERTIFICATE, CertificateAuthority, CertificateDetails, CertificateHolder, KEY,
    PkiDirectory, PkiError, TrustDomain,
};

/// All files and folders with their modes, and the content of files.
fn content(path: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap().path();
            let mode = fs::symlink_metadata(&entry).unwrap().permissions().mode() & 0o7777;
            let bytes = if entry.is_dir() { Vec::new() } else { fs::read(&entry).unwrap() };
            if entry.is_dir() {
                folders.push(entry.clone());
            }
            found.insert(entry.strip_prefix(path).unwrap().to_owned(), (mode, bytes));
        }
    }
    found
}

fn created() -> (TempDir, PkiDirectory, PathBuf) {
    let place = TempDir::new().unwrap();
    let path = place.path().join("pki");
    let directory = PkiDirectory::new(&path);
    directory.init(TrustDomain::default(), &[host("Registry.Prod.Example.")], now()).unwrap();
    (place, directory, path)
}

fn details(folder: &Path) -> CertificateDetails {
    let pem = fs::read(folder.join(CERTIFICATE)).unwrap();
    CertificateDetails::parse_pem(&pem).unwrap().remove(0)
}

#[test]
fn new_directory_has_exactly_the_documented_files_and_modes() {
    let (_place, directory, path) = created();
    directory.issue(&orders(), now()).unwrap();
    let content = content(&path);
    let modes: Vec<_> =
        content.iter().map(|(path, (mode, _))| format!("{mode:o} {}", path.display())).collect();
    let expected = [
        "700 admin",
        "644 admin/ca.crt",
        "644 admin/tls.crt",
        "600 admin/tls.key",
        "644 ca.crt",
        "600 ca.key",
        "644 policy.toml",
        "700 server",
        "644 server/ca.crt",
        "644 server/tls.crt",
        "600 server/tls.key",
        "700 workloads",
        "700 workloads/shop",
        "700 workloads/shop/orders",
        "644 workloads/shop/orders/ca.crt",
        "644 workloads/shop/orders/tls.crt",
        "600 workloads/shop/orders/tls.key",
    ];
    assert_eq!(modes, expected);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(content[Path::new("ca.crt")].1, content[Path::new("server/ca.crt")].1);
}

#[test]
fn server_has_the_local_names_the_machines_and_the_given_ones_once() {
    let (_place, directory, _) = created();
    let details = details(&directory.server());
    assert_eq!(details.hosts[..3], ["localhost", "127.0.0.1", "::1"]);
    let given = details.hosts.iter().filter(|host| *host == "registry.prod.example");
    assert_eq!(given.count(), 1);
    assert_eq!(details.uris, ["spiffe://waypost.internal/server"]);
}

#[test]
fn nothing_is_overwritten() {
    let (_place, directory, path) = created();
    directory.issue(&orders(), now()).unwrap();
    let before = content(&path);
    let again = directory.init(TrustDomain::default(), &[], now());
    assert!(matches!(again, Err(PkiError::Exists(_))), "{again:?}");
    let again = directory.issue(&orders(), now());
    assert!(matches!(again, Err(PkiError::Exists(_))), "{again:?}");
    assert_eq!(content(&path), before);
    // One file of five is enough to refuse.
    for name in ["server", "admin", "policy.toml", "ca.crt"] {
        let place = TempDir::new().unwrap();
        symlink("nowhere", place.path().join(name)).unwrap();
        let refused = PkiDirectory::new(place.path()).init(TrustDomain::default(), &[], now());
        assert!(matches!(refused, Err(PkiError::Exists(_))), "{refused:?}");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }
}

#[test]
fn renewal_replaces_certificates_and_keeps_the_authority_the_hosts_and_the_policy() {
    let (_place, directory, path) = created();
    fs::write(directory.policy(), "# mine\n").unwrap();
    directory.issue(&orders(), now()).unwrap();
    let (before, hosts) = (content(&path), details(&directory.server()).hosts);
    let later = now() + days(60);
    directory.renew_initial(&[host("10.0.0.7")], later).unwrap();
    directory.renew(&orders(), later).unwrap();
    let after = content(&path);
    assert!(before.keys().eq(after.keys()));
    let changed: Vec<_> =
        before.keys().filter(|path| before[*path] != after[*path]).map(PathBuf::as_path).collect();
    let renewed = ["admin", "server", "workloads/shop/orders"]
        .map(|folder| [CERTIFICATE, KEY].map(|file| Path::new(folder).join(file)));
    assert_eq!(changed, renewed.as_flattened());
    let renewed = details(&directory.server());
    assert_eq!(renewed.hosts, [hosts, vec!["10.0.0.7".to_owned()]].concat());
    assert_eq!(renewed.not_after, later + days(90));
    for entry in directory.certificates().unwrap() {
        entry.certificate.unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn renewal_makes_a_folder_that_is_missing() {
    let (_place, directory, _) = created();
    let operator = CertificateHolder::Operator("alice".parse().unwrap());
    let folder = directory.renew(&operator, now()).unwrap().path;
    assert!(folder.ends_with("operators/alice"), "{folder:?}");
    fs::remove_dir_all(directory.server()).unwrap();
    directory.renew_initial(&[], now()).unwrap();
    assert_eq!(details(&directory.server()).hosts[0], "localhost");
}

#[test]
fn renewal_hands_on_a_second_authority() {
    let (_place, directory, path) = created();
    let old = CertificateAuthority::create(TrustDomain::default(), now()).unwrap();
    // In front of the own one, which is found by its key.
    let own = fs::read_to_string(path.join(AUTHORITIES)).unwrap();
    let both = old.certificates().to_owned() + &own;
    fs::write(path.join(AUTHORITIES), &both).unwrap();
    directory.renew_initial(&[], now()).unwrap();
    for folder in [directory.server(), directory.admin()] {
        assert_eq!(fs::read_to_string(folder.join(AUTHORITIES)).unwrap(), both);
    }
    assert_eq!(directory.certificates().unwrap().len(), 4);
}

#[test]
fn failed_creation_leaves_nothing() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("a/file");
    fs::create_dir(place.path().join("a")).unwrap();
    fs::write(&path, "").unwrap();
    // A file where the directory should be, or above it.
    for path in [path.clone(), path.join("pki")] {
        let refused = PkiDirectory::new(&path).init(TrustDomain::default(), &[], now());
        let error = refused.expect_err("a file is there").to_string();
        assert!(error.contains("file"), "{error}");
    }
    assert_eq!(content(place.path()).len(), 2);
}

#[test]
fn missing_and_damaged_authorities_are_named() {
    let (_place, directory, path) = created();
    let other = CertificateAuthority::create(TrustDomain::default(), now()).unwrap();
    let issue = || directory.issue(&orders(), now()).unwrap_err().to_string();
    let (key, certificates) = (path.join("ca.key"), path.join(AUTHORITIES));
    let replaced = |file: &Path, text: &str| {
        let before = fs::read_to_string(file).unwrap();
        fs::write(file, text).unwrap();
        let error = issue();
        fs::write(file, before).unwrap();
        error
    };
    assert!(replaced(&key, &other.key()).ends_with("ca.crt: has no certificate for ca.key"));
    assert!(replaced(&key, "hello").ends_with("ca.key: is not a private key"));
    assert!(replaced(&certificates, "hello").ends_with("ca.crt: is not a list of certificates"));
    let large = "x".repeat((1 << 20) + 1);
    assert!(replaced(&certificates, &large).ends_with("ca.crt: has over 1048576 bytes"));
    fs::remove_file(&key).unwrap();
    assert!(issue().contains("ca.key: No such file"), "{}", issue());
    assert!(!path.join("workloads").exists());
}

#[test]
fn identity_folders_are_those_that_programs_read() {
    let (_place, directory, _) = created();
    let workload = directory.issue(&orders(), now()).unwrap().path;
    for folder in [directory.server(), directory.admin(), workload] {
        let read = IdentityFolder::read(&folder, now());
        let identity = read.unwrap_or_else(|errors| panic!("{errors:?}"));
        assert!(!identity.key_is_exposed());
    }
}

#[test]
fn principals_are_those_of_the_ids() {
    let (_place, directory, _) = created();
    let operator = CertificateHolder::Operator("alice".parse().unwrap());
    for holder in [orders(), operator, CertificateHolder::Server { hosts: Vec::new() }] {
        let folder = directory.renew(&holder, now()).unwrap().path;
        let peer = PeerCertificate::read(&[details(&folder).der]);
        let id = holder.spiffe_id(&TrustDomain::default()).unwrap();
        assert_eq!(peer.principal().unwrap().as_str(), id);
    }
}

#[test]
fn error_of_one_certificate_hides_no_other() {
    let (_place, directory, path) = created();
    fs::copy(path.join("admin/tls.key"), path.join("server/tls.key")).unwrap();
    directory.issue(&orders(), now()).unwrap();
    fs::remove_file(path.join("workloads/shop/orders/tls.crt")).unwrap();
    let entries = directory.certificates().unwrap();
    let entries: Vec<_> = entries
        .iter()
        .map(|entry| (entry.path.to_str().unwrap(), entry.certificate.is_ok()))
        .collect();
    let expected =
        [("ca.crt", true), ("server", false), ("admin", true), ("workloads/shop/orders", false)];
    assert_eq!(entries, expected);
}

#[test]
fn directory_that_is_there_keeps_its_mode_and_other_files() {
    let place = TempDir::new().unwrap();
    fs::set_permissions(place.path(), Permissions::from_mode(0o750)).unwrap();
    fs::write(place.path().join("notes"), "mine").unwrap();
    let directory = PkiDirectory::new(place.path());
    directory.init(TrustDomain::default(), &[], now()).unwrap();
    assert_eq!(fs::metadata(place.path()).unwrap().permissions().mode() & 0o777, 0o750);
    assert_eq!(fs::read_to_string(place.path().join("notes")).unwrap(), "mine");
}
