//! The addresses of a registry, and how each may be reached. Invariant: credentials go over TLS or
//! to this machine.

use std::sync::Arc;

use http::Uri;

use super::error::BuildError;
#[cfg(feature = "tls")]
use crate::transport::secure;
use crate::{
    credentials::{ActiveCredentials, Credentials},
    registry::{self, AddressDialer},
    transport::Dialer,
};

/// Checks an address, and how it may be reached.
pub(super) fn address_dialer(
    dialer: &Dialer,
    url: &str,
    credentials: Option<&Arc<ActiveCredentials>>,
) -> Result<AddressDialer, BuildError> {
    let uri = registry_uri(url)?;
    let dialer = if registry::is_https(&uri) {
        secure_dialer(dialer, url, &uri, credentials)?
    } else if credentials.is_some() && !registry::is_loopback(&uri) {
        return Err(BuildError::ClearText { url: url.to_owned() });
    } else {
        dialer.clone()
    };
    Ok(AddressDialer { uri, dialer })
}

#[cfg(feature = "tls")]
pub(super) fn active(credentials: Credentials) -> Result<Arc<ActiveCredentials>, BuildError> {
    ActiveCredentials::new(credentials)
        .map_err(|(id, error)| BuildError::BadServerId { id, reason: error.to_string() })
}

#[cfg(not(feature = "tls"))]
#[expect(clippy::unnecessary_wraps, reason = "with the feature `tls` it fails")]
pub(super) fn active(credentials: Credentials) -> Result<Arc<ActiveCredentials>, BuildError> {
    Ok(ActiveCredentials::new(credentials))
}

#[cfg(feature = "tls")]
fn secure_dialer(
    dialer: &Dialer,
    url: &str,
    uri: &Uri,
    credentials: Option<&Arc<ActiveCredentials>>,
) -> Result<Dialer, BuildError> {
    let credentials = credentials.filter(|credentials| credentials.tls().is_some());
    let credentials = credentials.ok_or_else(|| BuildError::NoRoots { url: url.to_owned() })?;
    secure(dialer, credentials, uri.host().unwrap_or_default()).ok_or_else(|| BuildError::BadUrl {
        url: url.to_owned(),
        reason: "its host is not a name that a certificate can have".to_owned(),
    })
}

#[cfg(not(feature = "tls"))]
fn secure_dialer(
    _: &Dialer,
    url: &str,
    _: &Uri,
    _: Option<&Arc<ActiveCredentials>>,
) -> Result<Dialer, BuildError> {
    let reason = "https:// needs the feature `tls` of the crate waypost-client".to_owned();
    Err(BuildError::BadUrl { url: url.to_owned(), reason })
}

pub(super) fn registry_uri(url: &str) -> Result<Uri, BuildError> {
    registry::parse_url(url)
        .map_err(|error| BuildError::BadUrl { url: url.to_owned(), reason: error.to_string() })
}
