//! The identity folder: `tls.crt`, `tls.key` and `ca.crt`, read and judged as a whole. Invariant:
//! content that is incomplete or invalid never replaces the identity in force.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};

use super::{
    folder_error::FolderError,
    identity::{FolderFiles, TlsIdentity},
};
use crate::credentials::content;

const CHAIN: &str = "tls.crt";
const KEY: &str = "tls.key";
const ROOTS: &str = "ca.crt";

/// The most bytes of a file. A bundle of CAs has some hundred KiB.
const FILE_BYTES_MAX: usize = 4 << 20;

/// A folder that is followed by content.
pub(crate) struct FollowedFolder {
    path: PathBuf,
    current: ArcSwap<TlsIdentity>,
    /// The digest of the content that was judged last.
    judged: Mutex<[u8; 32]>,
}

/// The content of the three files.
struct FolderContent {
    chain: Result<Vec<u8>, io::Error>,
    key: Result<Vec<u8>, io::Error>,
    roots: Result<Vec<u8>, io::Error>,
    digest: [u8; 32],
}

impl PartialEq for FolderContent {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl FollowedFolder {
    /// Reads the folder for the first time. Blocks.
    pub(crate) fn open(path: PathBuf) -> Result<Self, FolderError> {
        let content = FolderContent::read(&path);
        let identity = content.parse(&path, CertificateNeed::Optional)?;
        let (current, judged) = (ArcSwap::from_pointee(identity), Mutex::new(content.digest));
        Ok(Self { path, current, judged })
    }

    /// The identity in force.
    pub(crate) fn current(&self) -> Arc<TlsIdentity> {
        self.current.load_full()
    }

    /// Reads the folder, and replaces the identity if the content is another one and valid. Cancel
    /// safe.
    pub(crate) async fn poll(&self) {
        let path = self.path.clone();
        let last = FolderContent::judged(*self.lock());
        let read = move || FolderContent::read(&path);
        let Some(content) = content::read_settled(read, &last).await else { return };
        *self.lock() = content.digest;
        // A certificate that goes missing is a mistake, and would leave the client without one.
        let need = match self.current.load().ends_at() {
            Some(_) => CertificateNeed::Required,
            None => CertificateNeed::Optional,
        };
        match content.parse(&self.path, need) {
            Ok(identity) => self.current.store(Arc::new(identity)),
            Err(error) => {
                let path = self.path.display();
                tracing::error!(%path, %error, "invalid identity folder, keeping the previous one");
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, [u8; 32]> {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for FollowedFolder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FollowedFolder").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The need for a certificate of the client in the folder.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CertificateNeed {
    Optional,
    Required,
}

impl FolderContent {
    /// Blocks.
    fn read(folder: &Path) -> Self {
        let read = |name: &str| content::read_file(&folder.join(name), FILE_BYTES_MAX);
        let (chain, key, roots) = (read(CHAIN), read(KEY), read(ROOTS));
        let mut digest = Sha256::new();
        for file in [&chain, &key, &roots] {
            match file {
                Ok(bytes) => {
                    digest.update([0]);
                    digest.update(bytes.len().to_le_bytes());
                    digest.update(bytes);
                }
                Err(error) => {
                    let reason = error.to_string();
                    digest.update([1]);
                    digest.update(reason.len().to_le_bytes());
                    digest.update(reason);
                }
            }
        }
        Self { chain, key, roots, digest: digest.finalize().into() }
    }

    /// Content that is compared with and nothing else.
    fn judged(digest: [u8; 32]) -> Self {
        Self { chain: Ok(Vec::new()), key: Ok(Vec::new()), roots: Ok(Vec::new()), digest }
    }

    fn parse(&self, folder: &Path, need: CertificateNeed) -> Result<TlsIdentity, FolderError> {
        let unreadable = |name: &str, error: &io::Error| FolderError::Unreadable {
            path: folder.join(name),
            reason: error.to_string(),
        };
        let roots = self.roots.as_ref().map_err(|error| unreadable(ROOTS, error))?;
        let own = match (&self.chain, &self.key) {
            (Err(chain), Err(key))
                if need == CertificateNeed::Optional && is_missing(chain) && is_missing(key) =>
            {
                None
            }
            (chain, key) => {
                let chain = chain.as_ref().map_err(|error| unreadable(CHAIN, error))?;
                let key = key.as_ref().map_err(|error| unreadable(KEY, error))?;
                Some((chain.as_slice(), key.as_slice()))
            }
        };
        TlsIdentity::parse(FolderFiles { roots, own })
    }
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    use super::*;
    use crate::runtime::clock;

    /// A root certificate, and a certificate of it with its key.
    fn pems() -> [String; 3] {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["a".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &root).unwrap();
        [certificate.pem(), key.serialize_pem(), root.pem()]
    }

    fn write(folder: &Path, [chain, key, roots]: &[String; 3]) {
        for (name, content) in [(CHAIN, chain), (KEY, key), (ROOTS, roots)] {
            fs::write(folder.join(name), content).unwrap();
        }
    }

    #[test]
    fn an_incomplete_or_invalid_folder_is_refused_at_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path();
        let open = || FollowedFolder::open(folder.to_owned()).map(drop);
        let whole = pems();
        let [chain, key, roots] = &whole;
        let other = pems();
        assert!(
            matches!(open(), Err(FolderError::Unreadable { path, .. }) if path.ends_with(ROOTS))
        );
        write(folder, &whole);
        open().unwrap();
        for (name, content, reason) in [
            (ROOTS, "", "none found"),
            (ROOTS, key, "none found"),
            (CHAIN, "", "none found"),
            (CHAIN, &roots[..roots.len() / 2], "can't be used"),
            (KEY, "", "can't be used"),
            (KEY, chain, "can't be used"),
            (KEY, &other[1], "does not fit"),
        ] {
            write(folder, &whole);
            fs::write(folder.join(name), content).unwrap();
            let error = open().unwrap_err().to_string();
            assert!(error.contains(reason), "{name}: {error}");
            assert!(!error.contains(&key[40..60]), "a part of the key: {error}");
        }
        for name in [CHAIN, KEY] {
            write(folder, &whole);
            fs::remove_file(folder.join(name)).unwrap();
            let error = open().unwrap_err();
            assert!(matches!(error, FolderError::Unreadable { path, .. } if path.ends_with(name)));
        }
        fs::remove_file(folder.join(CHAIN)).unwrap();
        fs::write(folder.join(ROOTS), roots).unwrap();
        open().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_whole_folder_replaces_the_identity() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        write(&path, &pems());
        let folder = FollowedFolder::open(path.clone()).unwrap();
        let first = folder.current();
        folder.poll().await;
        let next = pems();
        fs::write(path.join(KEY), &next[1]).unwrap();
        folder.poll().await;
        // A certificate that was there must stay.
        fs::remove_file(path.join(CHAIN)).unwrap();
        fs::remove_file(path.join(KEY)).unwrap();
        folder.poll().await;
        assert!(Arc::ptr_eq(&first, &folder.current()));
        let began = clock::now();
        write(&path, &next);
        folder.poll().await;
        assert!(clock::now() - began >= Duration::from_millis(100));
        assert!(!Arc::ptr_eq(&first, &folder.current()));
        assert!(!format!("{folder:?} {first:?}").contains("BEGIN"));
    }

    #[test]
    fn damaged_files_do_no_harm() {
        let whole = pems();
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for round in 0..300 {
            let mut damaged = whole.clone().map(String::into_bytes);
            let file = &mut damaged[round % 3];
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..file.len());
                file[at] = random.u8(..);
            }
            let [chain, key, roots] = &damaged;
            // Valid or not, as long as nothing panics.
            let _ = TlsIdentity::parse(FolderFiles { roots, own: Some((chain, key)) });
        }
    }
}
