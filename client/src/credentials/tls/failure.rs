//! Errors of TLS connections, in words that name the certificate and the file to look at. Never
//! contains bytes of a peer.

use std::{error::Error, io};

use tokio_rustls::rustls::{self, AlertDescription, CertificateError, InvalidMessage};

/// The reason why there is no TLS connection. Has no source: the layers below add nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TlsFailure(String);

impl TlsFailure {
    /// The reason of an I/O error, if it comes from TLS. `expected` is the name that the server's
    /// certificate must have.
    pub(crate) fn find(error: &io::Error, expected: &str) -> Option<Self> {
        let mut cause: &(dyn Error + 'static) = error.get_ref()?;
        loop {
            if let Some(found) = cause.downcast_ref::<rustls::Error>() {
                return Some(Self(words(found, expected)));
            }
            // An error within an error of I/O is not its source.
            cause = match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
                Some(inner) => inner,
                None => cause.source()?,
            };
        }
    }
}

fn words(error: &rustls::Error, expected: &str) -> String {
    match error {
        rustls::Error::AlertReceived(alert) => refused(*alert),
        rustls::Error::InvalidCertificate(error) => not_trusted(error, expected),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the server speaks no TLS on this port".to_owned()
        }
        other => format!("the TLS handshake failed: {other}"),
    }
}

/// The server ended the handshake.
fn refused(alert: AlertDescription) -> String {
    let reason = match alert {
        AlertDescription::CertificateRequired => {
            return "the server requires a client certificate, and none was sent".to_owned();
        }
        AlertDescription::CertificateExpired => "it has expired",
        AlertDescription::UnknownCA => "the server trusts no CA that signed it",
        AlertDescription::CertificateRevoked => "it was revoked",
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate => "it is not acceptable",
        AlertDescription::AccessDenied => "it gives no access",
        AlertDescription::DecryptError => "its signature is of no CA that the server trusts",
        AlertDescription::NoApplicationProtocol => {
            return "the server does not offer HTTP/2 on this port".to_owned();
        }
        other => return format!("the server ended the TLS handshake: {other:?}"),
    };
    format!("the server refused the client certificate: {reason} ({alert:?})")
}

/// This side ended the handshake.
fn not_trusted(error: &CertificateError, expected: &str) -> String {
    let reason = match error {
        CertificateError::UnknownIssuer => "no trusted CA signed it".to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("it is not for {expected}")
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not for servers".to_owned()
        }
        CertificateError::BadSignature => "its signature is of no trusted CA".to_owned(),
        CertificateError::BadEncoding => "it is malformed".to_owned(),
        other => format!("{other:?}"),
    };
    format!("the server's certificate can't be trusted: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(error: rustls::Error) -> String {
        let error = io::Error::new(io::ErrorKind::InvalidData, error);
        let found = TlsFailure::find(&error, "registry.internal").unwrap().to_string();
        let wrapped = TlsFailure::find(&io::Error::other(error), "registry.internal").unwrap();
        assert_eq!(found, wrapped.to_string());
        found
    }

    #[test]
    fn alerts_come_out_in_words() {
        for (alert, expected) in [
            (AlertDescription::CertificateRequired, "requires a client certificate"),
            (
                AlertDescription::CertificateExpired,
                "refused the client certificate: it has expired",
            ),
            (AlertDescription::UnknownCA, "the server trusts no CA that signed it"),
            (AlertDescription::HandshakeFailure, "ended the TLS handshake: HandshakeFailure"),
        ] {
            let shown = shown(rustls::Error::AlertReceived(alert));
            assert!(shown.contains(expected), "{shown}");
        }
    }

    #[test]
    fn an_untrusted_server_is_explained() {
        for (error, expected) in [
            (CertificateError::UnknownIssuer, "no trusted CA signed it"),
            (CertificateError::NotValidForName, "it is not for registry.internal"),
            (CertificateError::Expired, "it has expired"),
        ] {
            let shown = shown(rustls::Error::InvalidCertificate(error));
            assert_eq!(shown, format!("the server's certificate can't be trusted: {expected}"));
        }
    }

    #[test]
    fn other_errors_are_not_of_tls() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(TlsFailure::find(&refused, "a"), None);
        assert_eq!(TlsFailure::find(&io::Error::other("a"), "a"), None);
    }
}
