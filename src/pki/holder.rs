//! The holders of certificates, and the SPIFFE IDs that name them.
//!
//! Pure. Invariant: the ID of a workload has the form that the generated policy grants to, and no
//! certificate but the server's has a host name, so that none but the server's passes for it.

use std::{fmt, str::FromStr};

use thiserror::Error;

use super::error::PkiError;
use crate::model::{Host, Name, ServiceKey};

/// The longest SPIFFE ID, by the specification.
const ID_BYTES_MAX: usize = 2048;

/// The domain of all SPIFFE IDs of an authority: lower-case letters, digits, `.`, `_` and `-`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustDomain(Box<str>);

/// An invalid [`TrustDomain`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "must be 1 to 255 lower-case letters, digits, '.', '_' and '-', and begin and end with a \
     letter or a digit"
)]
pub struct InvalidTrustDomain;

impl TrustDomain {
    /// The greatest length, in bytes.
    pub const BYTES_MAX: usize = 255;

    /// Returns the domain as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TrustDomain {
    /// A name of the top-level domain that is reserved for private use.
    fn default() -> Self {
        Self("waypost.internal".into())
    }
}

impl FromStr for TrustDomain {
    type Err = InvalidTrustDomain;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A name has the same form, with upper-case letters beside.
        let is_name = Name::parse(text, Self::BYTES_MAX).is_ok();
        let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        if is_name && lower { Ok(Self(text.into())) } else { Err(InvalidTrustDomain) }
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The holder of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateHolder {
    /// The registry, under the hosts of its URLs.
    Server {
        /// Its addresses and DNS names.
        hosts: Vec<Host>,
    },
    /// A person or program that may do everything.
    Operator(Name),
    /// The instances of a service.
    Workload(ServiceKey),
}

impl CertificateHolder {
    /// Returns the SPIFFE ID of the holder in a trust domain.
    ///
    /// # Errors
    /// [`PkiError::IdTooLong`], by the length of the names.
    pub fn spiffe_id(&self, domain: &TrustDomain) -> Result<String, PkiError> {
        let id = match self {
            Self::Server { .. } => format!("spiffe://{domain}/server"),
            Self::Operator(name) => format!("spiffe://{domain}/operators/{name}"),
            Self::Workload(ServiceKey { namespace, service }) => {
                format!("spiffe://{domain}/ns/{namespace}/sa/{service}")
            }
        };
        let bytes = id.len();
        if bytes > ID_BYTES_MAX {
            return Err(PkiError::IdTooLong { bytes, bytes_max: ID_BYTES_MAX });
        }
        Ok(id)
    }

    /// Returns the common name of the certificate's subject, for people. It contains a space, so
    /// that no program which still reads common names takes it for a host.
    pub(super) fn title(&self) -> &'static str {
        match self {
            Self::Server { .. } => "Waypost server",
            Self::Operator(_) => "Waypost operator",
            Self::Workload(_) => "Waypost workload",
        }
    }

    /// Returns the hosts for which the certificate is valid.
    pub(super) fn hosts(&self) -> &[Host] {
        match self {
            Self::Server { hosts } => hosts,
            Self::Operator(_) | Self::Workload(_) => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn trust_domain_is_in_lower_case() {
        for text in ["prod.example", "a", "waypost", "a_b-c.1", &"x".repeat(255)] {
            assert_eq!(text.parse::<TrustDomain>().unwrap().as_str(), text);
        }
        let default = TrustDomain::default();
        assert_eq!(default.as_str().parse(), Ok(default));
        let long = "x".repeat(256);
        for text in
            ["", "Prod.example", "a/b", "a b", "ä", "a*", "{a}", ".a", "a.", "a:1", "\"", &long]
        {
            assert_eq!(text.parse::<TrustDomain>(), Err(InvalidTrustDomain), "{text}");
        }
    }

    #[test]
    fn ids_name_the_holder() {
        let domain = TrustDomain::default();
        let id = |holder: CertificateHolder| holder.spiffe_id(&domain).unwrap();
        let server = CertificateHolder::Server { hosts: Vec::new() };
        assert_eq!(id(server), "spiffe://waypost.internal/server");
        let admin = CertificateHolder::Operator(name("admin"));
        assert_eq!(id(admin), "spiffe://waypost.internal/operators/admin");
        let key = ServiceKey { namespace: name("shop"), service: name("orders") };
        let workload = CertificateHolder::Workload(key);
        assert_eq!(id(workload), "spiffe://waypost.internal/ns/shop/sa/orders");
    }

    #[test]
    fn id_that_no_peer_accepts_is_refused() {
        let long = name(&"x".repeat(1024));
        let key = ServiceKey { namespace: long.clone(), service: long };
        let error = CertificateHolder::Workload(key).spiffe_id(&TrustDomain::default());
        assert!(matches!(error, Err(PkiError::IdTooLong { bytes_max: 2048, .. })), "{error:?}");
    }
}
