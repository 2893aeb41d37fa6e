//! The identity of a program: its certificate and key, and the authorities that it trusts.
//! Invariant: a folder with an error gives no identity, and all its errors are reported.

use std::{fmt, path::Path, sync::Arc, time::SystemTime};

use rustls::{
    Error, RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    server::NoServerSessionStorage,
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject};

use super::{
    client_roots::ClientRoots, identity_files::IdentityFiles, invalid_identity::InvalidIdentity,
    provider::provider,
};
use crate::certificate::{CertificateFields, Lifetime};

/// The rule of a server for the certificates of its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// A caller without one is refused in the handshake.
    Demanded,
    /// A caller may go without one.
    Requested,
}

/// A valid identity folder.
#[derive(Clone)]
pub struct IdentityFolder {
    key: Arc<CertifiedKey>,
    roots: ClientRoots,
    authorities: Vec<CertificateDer<'static>>,
    lifetime: Lifetime,
    authority_lifetimes: Vec<Lifetime>,
    key_is_exposed: bool,
}

impl IdentityFolder {
    /// Reads a folder, and checks it at the time `now`.
    ///
    /// # Errors
    /// All errors of the folder.
    pub fn read(directory: &Path, now: SystemTime) -> Result<Self, Vec<InvalidIdentity>> {
        Self::parse(&IdentityFiles::read(directory)?, now)
    }

    /// Like [`Self::read`], of bytes that were read before.
    ///
    /// # Errors
    /// All errors of the folder.
    pub fn parse(files: &IdentityFiles, now: SystemTime) -> Result<Self, Vec<InvalidIdentity>> {
        let (certificate, key) = (own_certificate(files, now), key(files));
        let authorities = authorities(files, now);
        let (Ok((chain, lifetime)), Ok(key), Ok((authorities, authority_lifetimes))) =
            (&certificate, &key, &authorities)
        else {
            // Where only the authorities are invalid, the key is still checked.
            let own = certificate.as_ref().ok().zip(key.as_ref().ok());
            let mismatch = own.and_then(|((chain, _), key)| certified_key(files, chain, key).err());
            let errors = [certificate.err(), key.err(), authorities.err()];
            return Err(mismatch
                .into_iter()
                .chain(errors.into_iter().flatten().flatten())
                .collect());
        };
        let certified = certified_key(files, chain, key);
        let path = files.directory.join("ca.crt");
        let roots = ClientRoots::new(authorities).map_err(|error| {
            InvalidIdentity::BadCertificate { path, number: 1, reason: error.to_string() }
        });
        let (Ok(key), Ok(roots)) = (&certified, &roots) else {
            return Err([certified.err(), roots.err()].into_iter().flatten().collect());
        };
        Ok(Self {
            key: Arc::clone(key),
            roots: roots.clone(),
            authorities: authorities.clone(),
            lifetime: *lifetime,
            authority_lifetimes: authority_lifetimes.clone(),
            key_is_exposed: files.key_is_exposed,
        })
    }

    /// Returns the roots that verify callers.
    #[must_use]
    pub fn roots(&self) -> &ClientRoots {
        &self.roots
    }

    /// Returns the authorities that are trusted, in DER.
    #[must_use]
    pub fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.authorities
    }

    /// Returns the lifetime of its own certificate.
    #[must_use]
    pub fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// Returns the lifetimes of the authorities.
    #[must_use]
    pub fn authority_lifetimes(&self) -> &[Lifetime] {
        &self.authority_lifetimes
    }

    /// Returns whether every user of the machine can read the key.
    #[must_use]
    pub fn key_is_exposed(&self) -> bool {
        self.key_is_exposed
    }

    /// Makes the configuration of a server: TLS 1.2 and 1.3, `h2` and `http/1.1`, without session
    /// tickets, resumption or early data, so that each connection proves its caller anew.
    #[must_use]
    pub fn server_config(&self, client_auth: ClientAuth) -> Arc<ServerConfig> {
        let verifier = match client_auth {
            ClientAuth::Demanded => self.roots.demanding(),
            ClientAuth::Requested => self.roots.requesting(),
        };
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("the provider has suites of both versions");
        let mut config = builder
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleKey(Arc::clone(&self.key))));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Arc::new(config)
    }
}

impl fmt::Debug for IdentityFolder {
    /// Leaves out the key, which must not get into logs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("IdentityFolder");
        debug.field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

/// The one certificate of a server, for every name.
#[derive(Debug)]
struct SingleKey(Arc<CertifiedKey>);

impl rustls::server::ResolvesServerCert for SingleKey {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// A part of a folder, or all its errors.
type Part<T> = Result<T, Vec<InvalidIdentity>>;

/// Reads `tls.crt`.
fn own_certificate(
    files: &IdentityFiles,
    now: SystemTime,
) -> Part<(Vec<CertificateDer<'static>>, Lifetime)> {
    let path = files.directory.join("tls.crt");
    let (chain, lifetimes) = certificates(&path, &files.certificate)?;
    let lifetime = lifetimes.first().copied().unwrap_or(Lifetime::NONE);
    let [begin, end] = rfc3339(lifetime);
    if lifetime.is_over(now) {
        return Err(vec![InvalidIdentity::Expired { path, at: end }]);
    }
    if !lifetime.has_begun(now) {
        return Err(vec![InvalidIdentity::NotYetValid { path, at: begin }]);
    }
    Ok((chain, lifetime))
}

/// Reads `ca.crt`. Authorities that have ended are left out, and an error if none is left.
fn authorities(
    files: &IdentityFiles,
    now: SystemTime,
) -> Part<(Vec<CertificateDer<'static>>, Vec<Lifetime>)> {
    let path = files.directory.join("ca.crt");
    let (found, lifetimes) = certificates(&path, &files.authorities)?;
    let (mut errors, mut store) = (Vec::new(), RootCertStore::empty());
    for (index, der) in found.iter().enumerate() {
        if let Err(error) = store.add(der.clone()) {
            let (path, reason) = (path.clone(), error.to_string());
            errors.push(InvalidIdentity::BadCertificate { path, number: index + 1, reason });
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let last = lifetimes.iter().max_by_key(|lifetime| lifetime.not_after).copied();
    let both = found.into_iter().zip(lifetimes);
    let valid: Vec<_> = both.filter(|(_, lifetime)| !lifetime.is_over(now)).collect();
    if valid.is_empty() {
        let [_, at] = rfc3339(last.unwrap_or(Lifetime::NONE));
        return Err(vec![InvalidIdentity::Expired { path, at }]);
    }
    Ok(valid.into_iter().unzip())
}

/// Reads `tls.key`.
fn key(files: &IdentityFiles) -> Part<PrivateKeyDer<'static>> {
    let path = files.directory.join("tls.key");
    let keys: Result<Vec<_>, _> = PrivateKeyDer::pem_slice_iter(&files.key).collect();
    let mut keys = keys.map_err(|error| vec![not_pem(&path, &error)])?;
    match (keys.pop(), keys.len()) {
        (Some(key), 0) => Ok(key),
        (Some(_), others) => Err(vec![InvalidIdentity::SeveralKeys { path, count: others + 1 }]),
        (None, _) => Err(vec![InvalidIdentity::NoKey { path }]),
    }
}

fn certified_key(
    files: &IdentityFiles,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, InvalidIdentity> {
    let path = files.directory.join("tls.key");
    let provider: &CryptoProvider = &provider();
    match CertifiedKey::from_der(chain.to_vec(), key.clone_key(), provider) {
        Ok(key) => Ok(Arc::new(key)),
        Err(Error::InconsistentKeys(_)) => Err(InvalidIdentity::KeyMismatch { path }),
        Err(error) => Err(InvalidIdentity::BadKey { path, reason: error.to_string() }),
    }
}

/// Reads all certificates of a file, at least one.
fn certificates(path: &Path, text: &[u8]) -> Part<(Vec<CertificateDer<'static>>, Vec<Lifetime>)> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let found = found.map_err(|error| vec![not_pem(path, &error)])?;
    if found.is_empty() {
        return Err(vec![InvalidIdentity::NoCertificate { path: path.into() }]);
    }
    let (mut errors, mut lifetimes) = (Vec::new(), Vec::new());
    for (index, der) in found.iter().enumerate() {
        match CertificateFields::read(der) {
            Some(fields) => lifetimes.push(fields.lifetime),
            None => errors.push(InvalidIdentity::BadCertificate {
                path: path.into(),
                number: index + 1,
                reason: "it is not well-formed".to_owned(),
            }),
        }
    }
    if errors.is_empty() { Ok((found, lifetimes)) } else { Err(errors) }
}

/// The error of a file that is not PEM. Its text has none of the file's bytes.
fn not_pem(path: &Path, error: &pem::Error) -> InvalidIdentity {
    let reason = match error {
        pem::Error::MissingSectionEnd { .. } => "a section does not end",
        pem::Error::IllegalSectionStart { .. } => "a section begins with a malformed line",
        pem::Error::Base64Decode(_) => "a section is not base64",
        _ => "it cannot be parsed",
    };
    InvalidIdentity::NotPem { path: path.into(), reason: reason.to_owned() }
}

/// Both ends of a lifetime as text.
fn rfc3339(lifetime: Lifetime) -> [String; 2] {
    [lifetime.not_before, lifetime.not_after]
        .map(|time| humantime::format_rfc3339_seconds(time).to_string())
}
