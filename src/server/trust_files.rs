//! The files that callers are judged by: the policy, the keys that it names, and the identity
//! folder. All are read, then judged together, so that no version mixes two states of them.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use tracing::warn;
use waypost_auth::{
    policy::Policy,
    tls::{ClientAuth, IdentityFiles, IdentityFolder, InvalidIdentity},
};
use waypost_config::{ConfigErrors, decode};

use crate::{
    auth::TlsContext,
    config::{Config, InvalidConfig},
    model::WallTime,
};

/// The bytes that are read of a file, one more than those that are allowed.
const BYTES_MAX: u64 = (4 << 20) + 1;

/// The places of the files.
#[derive(Debug, Clone)]
pub(super) struct TrustFiles {
    policy: PathBuf,
    /// The identity folder; `None`: clear text.
    tls: Option<PathBuf>,
}

/// The contents of the files at one time, or the reasons why they can't be read.
#[derive(PartialEq, Eq)]
pub(super) struct TrustContents {
    policy: Result<Vec<u8>, String>,
    keys: BTreeMap<PathBuf, Result<Vec<u8>, String>>,
    identity: Option<Result<IdentityFiles, Vec<InvalidIdentity>>>,
}

impl TrustFiles {
    /// Returns the files of a configuration; `None` without a policy, which TLS needs.
    pub(super) fn of(config: &Config) -> Option<Self> {
        Some(Self { policy: config.policy.clone()?, tls: config.tls.clone() })
    }

    /// Reads the files. Blocks.
    pub(super) fn read(&self) -> TrustContents {
        let policy = read(&self.policy);
        let text = policy.as_ref().ok().and_then(|bytes| decode(bytes).ok());
        let keys = Policy::key_files(text.unwrap_or_default(), self.directory());
        let with_bytes = |path: PathBuf| {
            let bytes = read(&path);
            (path, bytes)
        };
        TrustContents {
            keys: keys.into_iter().map(with_bytes).collect(),
            identity: self.tls.as_deref().map(IdentityFiles::read),
            policy,
        }
    }

    /// Judges contents at the time `now`.
    ///
    /// Errors: all of all files.
    pub(super) fn judge(
        &self,
        contents: &TrustContents,
        now: WallTime,
    ) -> Result<(Policy, Option<TlsContext>), InvalidConfig> {
        let mut errors = Vec::new();
        let file = self.policy.display();
        let policy = match &contents.policy {
            Ok(bytes) => self.parse(bytes, contents).map_err(|found| {
                errors.extend(found.0.iter().map(|error| format!("{file}: {error}")));
            }),
            Err(reason) => {
                errors.push(format!("{file}: cannot be read: {reason}"));
                Err(())
            }
        };
        let folder = contents.identity.as_ref().map(|files| {
            let now = UNIX_EPOCH + Duration::from_millis(now.0);
            let folder =
                files.as_ref().map_err(Clone::clone).and_then(|f| IdentityFolder::parse(f, now));
            folder.map_err(|found| errors.extend(found.iter().map(ToString::to_string)))
        });
        let (Ok(policy), Ok(folder)) = (policy, folder.transpose()) else {
            return Err(InvalidConfig(errors));
        };
        let tls = folder.map(|folder| {
            if folder.key_is_exposed() {
                warn!("other users of this machine can read tls.key; its mode should be 0600");
            }
            TlsContext::new(&folder, client_auth(&policy))
        });
        Ok((policy, tls))
    }

    fn parse(&self, bytes: &[u8], contents: &TrustContents) -> Result<Policy, ConfigErrors> {
        let keys = |path: &Path| match contents.keys.get(path) {
            Some(Ok(bytes)) => Ok(bytes.clone()),
            Some(Err(reason)) => Err(io::Error::other(reason.clone())),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        Policy::parse_with(decode(bytes)?, self.directory(), &keys)
    }

    fn directory(&self) -> &Path {
        self.policy.parent().unwrap_or(Path::new(""))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(BYTES_MAX).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// Certificates are demanded where no caller can do anything without one.
fn client_auth(policy: &Policy) -> ClientAuth {
    if policy.admits_without_certificate() { ClientAuth::Requested } else { ClientAuth::Demanded }
}
