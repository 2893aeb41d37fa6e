//! A certificate authority: its own certificate and key, and the certificates that it issues.
//!
//! Time is an argument; keys and serial numbers come from the system's random generator.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
    date_time_ymd,
};
use uuid::Uuid;

use super::{
    details::CertificateDetails,
    error::PkiError,
    holder::{CertificateHolder, TrustDomain},
    text_file::TextFile,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A certificate authority.
#[derive(Debug)]
pub struct CertificateAuthority {
    domain: TrustDomain,
    issuer: Issuer<'static, KeyPair>,
    /// The authority's own certificate.
    own: CertificateDetails,
    /// All certificates that are trusted, in PEM: during a change of the authority, several.
    certificates: String,
}

/// A certificate with its key. Secret.
pub struct IssuedIdentity {
    /// The content of the certificate.
    pub details: CertificateDetails,
    /// The certificate, in PEM.
    pub certificate: String,
    /// The private key, in PEM.
    pub key: String,
    /// The certificates of the authorities to trust, in PEM.
    pub authorities: String,
}

impl fmt::Debug for IssuedIdentity {
    /// Omits the key.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("IssuedIdentity").finish_non_exhaustive()
    }
}

impl CertificateAuthority {
    /// The validity of the authority's own certificate: 10 years.
    pub const VALIDITY: Duration = DAY.saturating_mul(3652);
    /// The validity of the certificates that it issues: 90 days.
    pub const ISSUED_VALIDITY: Duration = DAY.saturating_mul(90);
    /// How long before now the validity begins, for peers whose clocks are slow.
    pub const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

    /// Creates an authority with a key of its own.
    ///
    /// # Errors
    /// [`PkiError::Clock`], and [`PkiError::Generate`] if the system has no random numbers.
    pub fn create(domain: TrustDomain, now: SystemTime) -> Result<Self, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = new_params(now, now + Self::VALIDITY)?;
        params.distinguished_name = own_name(&key);
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{domain}").try_into()?)];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        let own = details_of(certificate.der())?;
        let certificates = certificate.pem();
        Ok(Self { domain, issuer: Issuer::new(params, key), own, certificates })
    }

    /// Parses an authority, whose certificate may be one of several.
    pub(super) fn parse(certificates: TextFile, key: &TextFile) -> Result<Self, PkiError> {
        let pair = KeyPair::from_pem(&key.text).map_err(|_| key.invalid("is not a private key"))?;
        let all = CertificateDetails::parse_pem(certificates.text.as_bytes());
        let all = all.ok_or_else(|| certificates.invalid("is not a list of certificates"))?;
        let public = pair.subject_public_key_info();
        let own = all.into_iter().find(|details| details.public_key == public);
        let own = own.ok_or_else(|| certificates.invalid("has no certificate for ca.key"))?;
        if !own.is_authority {
            return Err(certificates.invalid("the certificate for ca.key may not sign others"));
        }
        let domain = own.uris.iter().find_map(|uri| uri.strip_prefix("spiffe://")?.parse().ok());
        let domain = domain.ok_or_else(|| certificates.invalid("names no trust domain"))?;
        let issuer = Issuer::from_ca_cert_der(&own.der, pair)?;
        Ok(Self { domain, issuer, own, certificates: certificates.text })
    }

    /// Issues a certificate with a new key. It ends with the authority's at the latest.
    ///
    /// # Errors
    /// [`PkiError::AuthorityExpired`], [`PkiError::IdTooLong`], [`PkiError::Clock`] and
    /// [`PkiError::Generate`].
    pub fn issue(
        &self,
        holder: &CertificateHolder,
        now: SystemTime,
    ) -> Result<IssuedIdentity, PkiError> {
        if self.own.not_after <= now {
            return Err(PkiError::AuthorityExpired);
        }
        let end = (now + Self::ISSUED_VALIDITY).min(self.own.not_after);
        let mut params = new_params(now, end)?;
        params.distinguished_name.push(DnType::CommonName, holder.title());
        let id = holder.spiffe_id(&self.domain)?;
        params.subject_alt_names = vec![SanType::URI(id.try_into()?)];
        for host in holder.hosts() {
            let host = host.as_str();
            params.subject_alt_names.push(match host.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(host.try_into()?),
            });
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // SPIFFE demands both: peers are clients and servers of each other.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(IssuedIdentity {
            details: details_of(certificate.der())?,
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            authorities: self.certificates.clone(),
        })
    }

    /// The domain of the SPIFFE IDs that the authority issues.
    #[must_use]
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The certificates to trust, in PEM.
    #[must_use]
    pub fn certificates(&self) -> &str {
        &self.certificates
    }

    /// Returns the authority's private key, in PEM. Secret.
    #[must_use]
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }
}

/// Returns a name that no other authority has: a certificate's issuer is found by it where several
/// are trusted.
fn own_name(key: &KeyPair) -> DistinguishedName {
    let id = CertificateParams::default().key_identifier(key);
    let id: String = id.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, format!("Waypost CA {id}"));
    name
}

/// Returns the parameters of a certificate that is valid from a little before `now` to `end`.
fn new_params(now: SystemTime, end: SystemTime) -> Result<CertificateParams, PkiError> {
    let date_time = |time: SystemTime| {
        let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        date_time_ymd(1970, 1, 1).checked_add(since_epoch.try_into().ok()?)
    };
    let start = now.checked_sub(CertificateAuthority::CLOCK_SKEW).and_then(date_time);
    let mut params = CertificateParams::default();
    params.not_before = start.ok_or(PkiError::Clock)?;
    params.not_after = date_time(end).ok_or(PkiError::Clock)?;
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(random_serial());
    Ok(params)
}

/// Returns a positive serial number of 121 random bits.
fn random_serial() -> SerialNumber {
    let mut bytes = Uuid::new_v4().into_bytes();
    // Positive, and of one length.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn details_of(der: &[u8]) -> Result<CertificateDetails, PkiError> {
    CertificateDetails::parse(der).ok_or(rcgen::Error::CouldNotParseCertificate.into())
}
