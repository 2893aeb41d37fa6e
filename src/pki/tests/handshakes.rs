//! Folders as programs use them: mutual TLS between them, and readers during a renewal.

use std::{
    fs,
    path::Path,
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, SystemTime},
};

use rustls::{
    ClientConfig, ClientConnection, Connection, Error, RootCertStore, ServerConnection,
    crypto::ring,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tempfile::TempDir;
use waypost_auth::tls::{ClientAuth, IdentityFolder, InvalidIdentity};

use super::orders;
use crate::{
    clock::Clock,
    pki::{AUTHORITIES, CERTIFICATE, KEY, PkiDirectory, TrustDomain},
};

/// The present, since rustls reads the clock.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(Clock::start().wall().0)
}

fn created() -> (TempDir, PkiDirectory) {
    let place = TempDir::new().unwrap();
    let directory = PkiDirectory::new(place.path());
    directory.init(TrustDomain::default(), &[], now()).unwrap();
    (place, directory)
}

/// A client with the identity of a folder.
fn client(folder: &Path) -> ClientConfig {
    let certificates = |name: &str| -> Vec<CertificateDer<'static>> {
        let found = CertificateDer::pem_file_iter(folder.join(name)).unwrap();
        found.collect::<Result<_, _>>().unwrap()
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(AUTHORITIES));
    let key = PrivateKeyDer::from_pem_file(folder.join(KEY)).unwrap();
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(CERTIFICATE), key)
        .unwrap()
}

/// Moves bytes from one side to the other.
fn pass(from: &mut Connection, to: &mut Connection) -> Result<(), Error> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut bytes = &bytes[..];
    while !bytes.is_empty() {
        to.read_tls(&mut bytes).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

fn handshake(client_folder: &Path, server_folder: &Path, host: &str) -> Result<(), Error> {
    let server = IdentityFolder::read(server_folder, now()).unwrap();
    let server = ServerConnection::new(server.server_config(ClientAuth::Demanded))?;
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let client = ClientConnection::new(Arc::new(client(client_folder)), name)?;
    let (mut client, mut server) = (Connection::from(client), Connection::from(server));
    for _ in 0..10 {
        pass(&mut client, &mut server)?;
        pass(&mut server, &mut client)?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(())
}

#[test]
fn folders_of_one_authority_trust_each_other() {
    let (_place, directory) = created();
    let workload = directory.issue(&orders(), now()).unwrap().path;
    for client in [directory.admin(), workload.clone()] {
        for host in ["localhost", "127.0.0.1", "::1"] {
            handshake(&client, &directory.server(), host).unwrap();
        }
    }
    // A workload does not pass for the server.
    handshake(&directory.admin(), &workload, "localhost").unwrap_err();
    let (_other_place, other) = created();
    handshake(&other.admin(), &directory.server(), "localhost").unwrap_err();
}

#[test]
fn authority_can_be_changed_without_a_break() {
    let (_old_place, old) = created();
    let (_new_place, new) = created();
    let authorities = |directory: &PkiDirectory| {
        let path = directory.policy().with_file_name(AUTHORITIES);
        (fs::read_to_string(&path).unwrap(), path)
    };
    let ((old_pem, old_path), (new_pem, new_path)) = (authorities(&old), authorities(&new));
    fs::write(old_path, old_pem.clone() + &new_pem).unwrap();
    fs::write(&new_path, old_pem + &new_pem).unwrap();
    for directory in [&old, &new] {
        directory.renew_initial(&[], now()).unwrap();
    }
    for (client, server) in [(&old, &new), (&new, &old), (&old, &old), (&new, &new)] {
        handshake(&client.admin(), &server.server(), "localhost").unwrap();
    }
    fs::write(new_path, new_pem).unwrap();
    new.renew_initial(&[], now()).unwrap();
    handshake(&new.admin(), &new.server(), "localhost").unwrap();
    handshake(&old.admin(), &new.server(), "localhost").unwrap_err();
}

#[test]
fn reader_finds_a_whole_folder_or_a_key_that_does_not_fit() {
    let (_place, directory) = created();
    let done = AtomicBool::new(false);
    let (mut whole, mut mixed) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20 {
                directory.renew_initial(&[], now()).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            match IdentityFolder::read(&directory.server(), now()) {
                Ok(_) => whole += 1,
                // No file is ever missing, or a part of one.
                Err(errors) => {
                    let is_mixed = |error: &InvalidIdentity| {
                        matches!(error, InvalidIdentity::KeyMismatch { .. })
                    };
                    assert!(errors.iter().all(is_mixed), "{errors:?}");
                    mixed += 1;
                }
            }
        }
    });
    assert!(whole > mixed, "{whole} {mixed}");
    IdentityFolder::read(&directory.server(), now()).unwrap();
}
