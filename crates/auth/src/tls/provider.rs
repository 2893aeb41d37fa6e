//! The provider of cryptography for TLS, named here alone.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};

/// Returns the provider that all TLS uses: ring. Named, so that it does not depend on the providers
/// of other crates in the process.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
