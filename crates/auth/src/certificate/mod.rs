//! Certificates of callers: the principal that one names, its fingerprint and its end.
//!
//! From the top: `peer_certificate`; `fields`, the part of X.509 that is read; `principal`, the
//! rules by which alternative names become a principal; `lifetime`.
//! Pure. Invariant: a certificate of a peer never panics, and names one principal or none.

mod fields;
mod lifetime;
mod peer_certificate;
mod principal;

pub(crate) use fields::CertificateFields;
pub use lifetime::Lifetime;
pub use peer_certificate::PeerCertificate;

#[cfg(test)]
mod tests;
