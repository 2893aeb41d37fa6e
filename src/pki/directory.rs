//! The directory of an authority: `ca.crt`, `ca.key`, `policy.toml` and the identity folders
//! `server`, `admin`, `operators/NAME` and `workloads/NAMESPACE/SERVICE`.
//!
//! Invariant: nothing is overwritten but the files of an identity that is renewed.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rcgen::{KeyPair, PublicKeyData};

use super::{
    AUTHORITIES, CERTIFICATE, KEY,
    authority::CertificateAuthority,
    details::CertificateDetails,
    error::PkiError,
    files::{
        FileMode, create_file, create_folders, create_identity, create_staging, exists, publish,
        replace_identity, sync_folder,
    },
    holder::{CertificateHolder, TrustDomain},
    policy::policy,
    text_file::TextFile,
};
use crate::model::{Host, Name, ServiceKey};

/// The authority's private key.
const AUTHORITY_KEY: &str = "ca.key";
/// The folder of the registry's certificate.
const SERVER: &str = "server";
/// The operator that every directory has, and the name of its folder.
const ADMIN: &str = "admin";
const POLICY: &str = "policy.toml";
const OPERATORS: &str = "operators";
const WORKLOADS: &str = "workloads";

/// The greatest length of a host name.
const HOST_BYTES_MAX: usize = 253;

/// The directory of a certificate authority.
#[derive(Debug, Clone)]
pub struct PkiDirectory {
    path: PathBuf,
}

/// One certificate of a directory.
#[derive(Debug)]
pub struct CertificateEntry {
    /// The file of the authority, or the folder of the identity, below the directory.
    pub path: PathBuf,
    /// The certificate. An error of one hides no other.
    pub certificate: Result<CertificateDetails, PkiError>,
}

/// An identity folder into which a certificate was issued.
#[derive(Debug)]
pub struct IssuedFolder {
    /// The folder.
    pub path: PathBuf,
    /// The new certificate.
    pub certificate: CertificateDetails,
}

impl PkiDirectory {
    /// Refers to a directory, which need not exist.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The identity folder of the registry, for `--tls`.
    #[must_use]
    pub fn server(&self) -> PathBuf {
        self.path.join(SERVER)
    }

    /// The identity folder of the operator `admin`.
    #[must_use]
    pub fn admin(&self) -> PathBuf {
        self.path.join(ADMIN)
    }

    /// The policy, for `--policy`.
    #[must_use]
    pub fn policy(&self) -> PathBuf {
        self.path.join(POLICY)
    }

    /// The identity folder of a holder.
    #[must_use]
    pub fn folder(&self, holder: &CertificateHolder) -> PathBuf {
        match holder {
            CertificateHolder::Server { .. } => self.server(),
            CertificateHolder::Operator(name) if name.as_str() == ADMIN => self.admin(),
            CertificateHolder::Operator(name) => self.path.join(OPERATORS).join(name.as_str()),
            CertificateHolder::Workload(ServiceKey { namespace, service }) => {
                self.path.join(WORKLOADS).join(namespace.as_str()).join(service.as_str())
            }
        }
    }

    /// Creates an authority, the certificates of the server and of `admin`, and the policy. On an
    /// error nothing of it stays.
    ///
    /// # Errors
    /// [`PkiError::Exists`] if one of the files is there; those of [`CertificateAuthority`]; a file
    /// can't be written.
    pub fn init(
        &self,
        domain: TrustDomain,
        hosts: &[Host],
        now: SystemTime,
    ) -> Result<(), PkiError> {
        // The key last: with it, the directory is complete.
        let names = [SERVER, ADMIN, POLICY, AUTHORITIES, AUTHORITY_KEY];
        for path in names.map(|name| self.path.join(name)) {
            if exists(&path)? {
                return Err(PkiError::Exists(path));
            }
        }
        let authority = CertificateAuthority::create(domain, now)?;
        let server = authority.issue(&server(hosts, Vec::new()), now)?;
        let admin = authority.issue(&CertificateHolder::Operator(admin()), now)?;
        let is_new = !exists(&self.path)?;
        create_folders(&self.path)?;
        let mut published = Vec::new();
        let mut write = || {
            let staging = create_staging(&self.path)?;
            let staged = |name: &str| staging.path().join(name);
            create_identity(&staged(SERVER), &server)?;
            create_identity(&staged(ADMIN), &admin)?;
            create_file(&staged(POLICY), &policy(authority.domain()), FileMode::Public)?;
            create_file(&staged(AUTHORITIES), authority.certificates(), FileMode::Public)?;
            create_file(&staged(AUTHORITY_KEY), &authority.key(), FileMode::Secret)?;
            for name in names {
                let path = self.path.join(name);
                publish(staged(name), &path)?;
                published.push(path);
            }
            sync_folder(&self.path)
        };
        let written = write();
        if written.is_err() {
            remove(&published);
            if is_new {
                // Removes an empty directory only.
                let _ = fs::remove_dir(&self.path);
            }
        }
        written
    }

    /// Renews the certificates of the server and of `admin`. The authority and the policy stay, and
    /// so do the server's present hosts, beside `hosts`.
    ///
    /// # Errors
    /// Those of [`renew`](Self::renew).
    pub fn renew_initial(
        &self,
        hosts: &[Host],
        now: SystemTime,
    ) -> Result<[IssuedFolder; 2], PkiError> {
        let present = self.present_hosts()?;
        let server = self.renew(&server(hosts, present), now)?;
        Ok([server, self.renew(&CertificateHolder::Operator(admin()), now)?])
    }

    /// Issues a certificate into a folder that is not there yet.
    ///
    /// # Errors
    /// [`PkiError::Exists`]; [`PkiError::Invalid`] for a damaged authority; those of
    /// [`CertificateAuthority::issue`]; a file can't be read or written.
    pub fn issue(
        &self,
        holder: &CertificateHolder,
        now: SystemTime,
    ) -> Result<IssuedFolder, PkiError> {
        let folder = self.folder(holder);
        if exists(&folder)? {
            return Err(PkiError::Exists(folder));
        }
        let files = self.authority()?.issue(holder, now)?;
        let staging = create_staging(&self.path)?;
        let staged = staging.path().join(SERVER);
        create_identity(&staged, &files)?;
        let above = folder.parent().unwrap_or(&self.path);
        create_folders(above)?;
        publish(staged, &folder)?;
        sync_folder(above)?;
        Ok(IssuedFolder { path: folder, certificate: files.details })
    }

    /// Replaces the certificate and key in a folder, or issues the first ones.
    ///
    /// # Errors
    /// Those of [`issue`](Self::issue).
    pub fn renew(
        &self,
        holder: &CertificateHolder,
        now: SystemTime,
    ) -> Result<IssuedFolder, PkiError> {
        let folder = self.folder(holder);
        if !exists(&folder)? {
            return self.issue(holder, now);
        }
        let files = self.authority()?.issue(holder, now)?;
        replace_identity(&folder, &files)?;
        Ok(IssuedFolder { path: folder, certificate: files.details })
    }

    /// Reads all certificates: the authority's, then those of all identity folders.
    ///
    /// # Errors
    /// A folder can't be listed. An error of one certificate is in its entry.
    pub fn certificates(&self) -> Result<Vec<CertificateEntry>, PkiError> {
        let authorities = Path::new(AUTHORITIES);
        let entry = |certificate| CertificateEntry { path: authorities.to_owned(), certificate };
        let mut entries: Vec<_> = match read_certificates(self.path.join(authorities)) {
            Ok(all) => all.into_iter().map(|details| entry(Ok(details))).collect(),
            Err(error) => vec![entry(Err(error))],
        };
        let mut folders = vec![PathBuf::from(SERVER), PathBuf::from(ADMIN)];
        folders.extend(self.list(OPERATORS.as_ref())?);
        for namespace in self.list(WORKLOADS.as_ref())? {
            folders.extend(self.list(&namespace)?);
        }
        for path in folders {
            if exists(&self.path.join(&path))? {
                let certificate = read_identity(&self.path.join(&path));
                entries.push(CertificateEntry { path, certificate });
            }
        }
        Ok(entries)
    }

    /// Lists the folders in a folder below the directory, in order; none if it is not there.
    fn list(&self, below: &Path) -> Result<Vec<PathBuf>, PkiError> {
        let folder = self.path.join(below);
        if !exists(&folder)? {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder).map_err(PkiError::file(&folder))? {
            let name = entry.map_err(PkiError::file(&folder))?.file_name();
            let is_name = name.to_str().is_some_and(|name| name.parse::<Name>().is_ok());
            if is_name && folder.join(&name).is_dir() {
                found.push(below.join(name));
            }
        }
        found.sort();
        Ok(found)
    }

    fn authority(&self) -> Result<CertificateAuthority, PkiError> {
        let key = TextFile::read(self.path.join(AUTHORITY_KEY))?;
        let certificates = TextFile::read(self.path.join(AUTHORITIES))?;
        CertificateAuthority::parse(certificates, &key)
    }

    /// Returns the hosts of the server's present certificate, if there is one.
    fn present_hosts(&self) -> Result<Vec<Host>, PkiError> {
        let path = self.server().join(CERTIFICATE);
        if !exists(&path)? {
            return Ok(Vec::new());
        }
        let present = read_certificates(path)?.swap_remove(0).hosts;
        Ok(present.iter().filter_map(|host| Host::parse(host, HOST_BYTES_MAX).ok()).collect())
    }
}

/// Removes files and folders that this process has just created.
fn remove(paths: &[PathBuf]) {
    for path in paths {
        // The error that led here is the one to report.
        let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    }
}

fn admin() -> Name {
    Name::parse(ADMIN, ADMIN.len()).expect("a valid name")
}

/// Returns the server with its hosts: this machine's, those that it had, and the given ones.
fn server(hosts: &[Host], present: Vec<Host>) -> CertificateHolder {
    let machine = rustix::system::uname();
    let machine = machine.nodename().to_str().unwrap_or_default();
    let local = ["localhost", "127.0.0.1", "::1", machine];
    let local = local.iter().filter_map(|host| Host::parse(host, HOST_BYTES_MAX).ok());
    let mut all: Vec<Host> = Vec::new();
    for host in local.chain(present).chain(hosts.iter().cloned()) {
        // Clients compare in lower case, without the dot of absolute names.
        let name = host.as_str().trim_end_matches('.').to_ascii_lowercase();
        let host = match host.as_str().parse::<std::net::IpAddr>() {
            Ok(address) => Host::parse(&address.to_string(), HOST_BYTES_MAX),
            Err(_) => Host::parse(&name, HOST_BYTES_MAX),
        };
        all.extend(host.ok().filter(|host| !all.contains(host)));
    }
    CertificateHolder::Server { hosts: all }
}

fn read_certificates(path: PathBuf) -> Result<Vec<CertificateDetails>, PkiError> {
    let file = TextFile::read(path)?;
    let read = CertificateDetails::parse_pem(file.text.as_bytes());
    read.ok_or_else(|| file.invalid("is not a list of certificates"))
}

/// Reads the certificate of an identity folder, and checks that the key is its own.
fn read_identity(folder: &Path) -> Result<CertificateDetails, PkiError> {
    let details = read_certificates(folder.join(CERTIFICATE))?.swap_remove(0);
    let key = TextFile::read(folder.join(KEY))?;
    let pair = KeyPair::from_pem(&key.text).map_err(|_| key.invalid("is not a private key"))?;
    if pair.subject_public_key_info() != details.public_key {
        return Err(key.invalid("does not fit tls.crt: issue both again with --renew"));
    }
    Ok(details)
}
