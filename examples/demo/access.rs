//! Access to the registry: everyone's in clear text, or by certificates of an authority that the
//! demonstration makes for itself (`--secure`).

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use waypost::{
    model::{Name, ServiceKey},
    pki::{CertificateHolder, PkiDirectory, TrustDomain},
};
use waypost_client::{Client, Credentials};

use crate::Outcome;

/// The workloads that have a certificate.
const WORKLOADS: [&str; 3] = ["orders", "prices", "gateway"];

/// How the processes reach the registry.
pub(crate) enum Access {
    Open,
    Secure(PkiDirectory),
}

impl Access {
    /// Makes an authority in `directory`, and a certificate for each workload.
    pub(crate) fn secure(directory: &Path) -> Outcome<Self> {
        let pki = PkiDirectory::new(directory.join("pki"));
        let now = SystemTime::now();
        pki.init(TrustDomain::default(), &[], now)?;
        for workload in WORKLOADS {
            pki.issue(&holder(workload)?, now)?;
        }
        Ok(Self::Secure(pki))
    }

    pub(crate) fn scheme(&self) -> &'static str {
        match self {
            Self::Open => "http",
            Self::Secure(_) => "https",
        }
    }

    /// The arguments of `serve`.
    pub(crate) fn of_registry(&self) -> Vec<PathBuf> {
        match self {
            Self::Open => Vec::new(),
            Self::Secure(pki) => {
                vec!["--tls".into(), pki.server(), "--policy".into(), pki.policy()]
            }
        }
    }

    /// The identity folder of a workload.
    pub(crate) fn of_workload(&self, name: &str) -> Outcome<Option<PathBuf>> {
        match self {
            Self::Open => Ok(None),
            Self::Secure(pki) => Ok(Some(pki.folder(&holder(name)?))),
        }
    }

    /// The identity folder of the operator.
    pub(crate) fn of_operator(&self) -> Option<PathBuf> {
        match self {
            Self::Open => None,
            Self::Secure(pki) => Some(pki.admin()),
        }
    }
}

/// A client of the registry, with a certificate if there is one.
pub(crate) fn client(registry: &str, folder: Option<&Path>) -> Outcome<Client> {
    let builder = Client::builder().registry(registry);
    Ok(match folder {
        Some(folder) => builder.credentials(Credentials::folder(folder)?).build()?,
        None => builder.build()?,
    })
}

fn holder(workload: &str) -> Outcome<CertificateHolder> {
    let name = |text| Name::parse(text, Name::BYTES_MAX);
    let key = ServiceKey { namespace: name("default")?, service: name(workload)? };
    Ok(CertificateHolder::Workload(key))
}
