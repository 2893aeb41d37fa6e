//! Certificates from PEM, and the TLS settings that all connections share: rustls with ring, TLS
//! 1.2 and 1.3.

use std::{fmt, sync::Arc};

use tokio_rustls::rustls::{
    self, ClientConfig, ConfigBuilder, WantsVerifier,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, pem::PemObject},
};

/// The cryptography of all connections. Named, so that it does not depend on the providers of other
/// crates in the process.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Starts the settings of a client.
pub(crate) fn client_config() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()
}

/// Parses certificates, of which there must be one at least. `bad` makes the error of a reason.
pub(crate) fn certificates<E>(
    pem: &[u8],
    bad: impl Fn(&dyn fmt::Display) -> E,
) -> Result<Vec<CertificateDer<'static>>, E> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| bad(&error))?;
    if found.is_empty() { Err(bad(&"none found")) } else { Ok(found) }
}
